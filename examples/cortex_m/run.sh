#!/usr/bin/env bash
# Compiles the digits network for a Cortex-M55, links it into firmware, and runs that in QEMU.
# Needs tensmith, arm-none-eabi-gcc with newlib, and qemu-system-arm. Usage: run.sh [folder]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$(mktemp -d)}
mkdir -p "$out"
"${TENSMITH:-tensmith}" compile "$here/../digits/digits.onnx" --shape image:1x1x8x8 \
  --target cortex-m55 -o "$out/digits.a"
arm-none-eabi-gcc -mcpu=cortex-m55 -mthumb -mfloat-abi=hard -Os -Wall -Wextra -Werror \
  -ffunction-sections -nostartfiles --specs=nosys.specs -Wl,--gc-sections \
  -Wl,--no-warn-rwx-segments -Wl,--no-warn-execstack -T "$here/board.ld" -I "$out" \
  "$here/main.c" "$here/startup.c" "$out/digits.a" -o "$out/firmware.elf"
arm-none-eabi-size -A "$out/firmware.elf" | grep -E '^\.(text|model_weights|rodata|model_arena) '
qemu-system-arm -M mps3-an547 -display none -serial null -monitor none \
  -semihosting-config enable=on,target=native -kernel "$out/firmware.elf"
