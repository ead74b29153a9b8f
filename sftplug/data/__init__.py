"""The way of the data, one module an arrow.

sources  ──▶ rows      ──format──▶   convert ──▶ conversations
render   ──▶ text + who wrote each character
tokenize ──▶ ids + who wrote each token
mask     ──▶ loss weight per token
prepare  ──▶ the dataset that the trainer gets; the ledger accounts for every row on the way
"""
