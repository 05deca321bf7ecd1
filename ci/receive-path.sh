#!/usr/bin/env bash
# The receive path holds no locked instruction between an event flag and a channel's callback.
#
# Builds vmbus-channels as a release does (without fat LTO, which leaves no symbols to look at), disassembles
# `dispatch::receive::deliver`, and fails when it finds a `lock` prefix, an `xchg` (which locks without saying so), a
# fence, or a call to anything that is not the callback, where one could hide. Then the same with a counter in that
# function that should not be there (cfg `receive_path_counts`), which must be found: that the look would see it.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/receive-path

case "$(uname -m)" in
x86_64) ;;
*) echo "receive-path: knows only x86-64 instructions, and this is $(uname -m)"; exit 77 ;;
esac
if ! command -v objdump >/dev/null; then
    echo "receive-path: there is no objdump; install binutils"
    exit 77
fi

# Prints the disassembly of the function, built with the given extra arguments to rustc.
disassembly() {
    "${CARGO:-cargo}" rustc --quiet --package vmbus-channels --lib --release --target-dir "$target" \
        --config 'profile.release.lto="off"' --config 'profile.release.debug=false' -- "$@"
    objdump --disassemble --demangle --no-show-raw-insn "$target/release/libvmbus_channels.rlib" 2>/dev/null |
        awk '/^[0-9a-f]+ <.*>:$/ { inside = /vmbus_channels::dispatch::receive::deliver(::h[0-9a-f]+)?>:$/ } inside && NF'
}

# Prints what must not be in a disassembly, as far as there is any.
findings() {
    # `xchg %ax,%ax` is a two-byte nop. A call to an address, or through one next to the code (%rip), and a jump out of
    # the function lead to other code.
    grep -P '\block\b|\bxchg\b(?!\s+%ax,%ax)|\b[lms]fence\b|\bcallq?\s+(?![\s*])|\*.*%rip|\bj\w+\s.*<(?!.*::deliver)' || true
}

# What the pattern is to find, and what not.
for bad in 'lock incq 0x0(%rip)' 'xchg   %rax,(%rdi)' 'mfence' 'call   1f <other>' 'call   *0x0(%rip)' 'jmp    0 <other::function>'; do
    [ -n "$(findings <<<"  c9:	$bad")" ] || { echo "receive-path: FAILED: \`$bad\` would not be found"; exit 1; }
done
for good in 'xchg   %ax,%ax' 'call   *0x18(%rax)' 'jae    70 <vmbus_channels::dispatch::receive::deliver+0x70>' 'add    $1,%rax'; do
    [ -z "$(findings <<<"  c9:	$good")" ] || { echo "receive-path: FAILED: \`$good\` would be found"; exit 1; }
done

looked_at=$(disassembly)
if [ -z "$looked_at" ]; then
    echo "receive-path: FAILED: there is no vmbus_channels::dispatch::receive::deliver in the library"
    exit 1
fi
if ! grep -q 'call.*\*' <<<"$looked_at"; then
    echo "receive-path: FAILED: deliver calls nobody; this is not the function that was meant"
    exit 1
fi
found=$(findings <<<"$looked_at")
if [ -n "$found" ]; then
    echo "receive-path: FAILED: between an event flag and the callback there is"
    echo "$found"
    exit 1
fi

spoilt=$(disassembly --cfg receive_path_counts | findings | grep '\block\b' || true)
if [ -z "$spoilt" ]; then
    echo "receive-path: FAILED: an atomic counter put into deliver was not found; the look sees nothing"
    exit 1
fi

count=$(grep -cP '^\s+[0-9a-f]+:' <<<"$looked_at")
spoilt=$(sed 's/^[^:]*:[[:space:]]*//; s/[[:space:]]*#.*//' <<<"$spoilt")
echo "receive-path: deliver is $count instructions, none of them locked; one that was put there was found: $spoilt"
