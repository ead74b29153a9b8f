#!/bin/sh
# Train a recipe with accelerate: sh accelerate.sh CONFIG RECIPE [SECTION.KEY=VALUE…]
#
# CONFIG is a file that `accelerate config` has written, or the accelerate.yaml of an earlier run.
set -eu
config=$1
shift
exec accelerate launch --config_file "$config" --module sftplug train "$@"
