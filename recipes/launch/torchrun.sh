#!/bin/sh
# Train a recipe with torchrun: sh torchrun.sh RECIPE [PROCESSES] [SECTION.KEY=VALUE…]
#
# The recipe's `launch.strategy` counts, if it has one; how many processes there are is said here.
set -eu
recipe=$1
processes=${2:-gpu}
shift; [ $# -eq 0 ] || shift
exec torchrun --standalone --nproc_per_node "$processes" --module sftplug train "$recipe" "$@"
