"""What vLLM makes of prompts: ``python vllm_replies.py`` with a request on standard input, in an environment with vLLM.

The request is JSON: `folder` of an export by ``vllm``, `prompts`, and, of an adapter, `base`. Printed last is a line of
JSON with the ids of each rendered prompt and the greedy reply. The engine is set up as ``serve.sh`` there has it.
"""

import json
import os
import sys
from pathlib import Path

LONGEST = 48


def main() -> None:
    """Answer the request."""
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM
    from vllm.lora.request import LoRARequest

    asked = json.load(sys.stdin)
    folder, base = asked["folder"], asked.get("base")
    adapter = {"enable_lora": True, "max_lora_rank": 64, "tokenizer": folder} if base else {}
    how = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "generation_config": folder}
    engine = LLM(base or folder, **how, **adapter)
    sampling = engine.get_default_sampling_params()
    sampling.temperature, sampling.max_tokens = 0, LONGEST
    done = engine.chat(
        [[{"role": "user", "content": prompt}] for prompt in asked["prompts"]],
        sampling,
        chat_template=(Path(folder) / "chat_template.jinja").read_text(),
        lora_request=LoRARequest("run", 1, folder) if base else None,
        use_tqdm=False,
    )
    print(json.dumps([{"ids": list(each.prompt_token_ids), "reply": each.outputs[0].text} for each in done]))


if __name__ == "__main__":
    main()
