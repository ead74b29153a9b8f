from sftplug.testing import check_quantization

from frozen_quantization import FrozenQuantization


def test_it_keeps_the_laws_of_quantization_backends() -> None:
    check_quantization(FrozenQuantization)


def test_what_is_kept_is_not_quantized() -> None:
    config = FrozenQuantization(keep=("down_proj",)).load_kwargs()["quantization_config"]
    assert (config.load_in_8bit, config.llm_int8_skip_modules) == (True, ["down_proj"])
