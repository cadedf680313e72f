#!/usr/bin/env python3
"""Write builder/sandbox/seccomp/numbers.py: the numbers of system calls, out of the kernel's headers.

    scripts/syscall_numbers.py > builder/sandbox/seccomp/numbers.py

For whoever maintains the seccomp profile; nothing else needs it. It needs a C compiler and Debian's packages
linux-libc-dev (on amd64), linux-libc-dev-arm64-cross and linux-libc-dev-armhf-cross; --root is where they are unpacked.
"""

import argparse
import re
import subprocess
import textwrap

HEADERS = {
    "X86_64": ("asm/unistd_64.h", "usr/include/x86_64-linux-gnu"),
    "I386": ("asm/unistd_32.h", "usr/include/x86_64-linux-gnu"),
    "AARCH64": ("asm/unistd.h", "usr/aarch64-linux-gnu/include"),
    "ARM": ("asm/unistd.h", "usr/arm-linux-gnueabihf/include"),
}
THIRTY_TWO_BITS = ("I386", "ARM")
NO_CALLS = {"syscalls", "arch_specific_syscall"}
TIME64, COMMON = 403, 424
"""From the first number on, 32-bit ABIs share their calls with 64-bit times; from the second, all ABIs share all."""

# What the headers of Linux 6.1 lack, from those of Linux 6.13; to be dropped when Debian has these.
FROM_451 = (
    "cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr"
    " lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat"
)
LATER = {"X86_64": {335: "uretprobe"}, "COMMON": dict(enumerate(FROM_451.split(), start=451))}

HEAD = '''\
"""The numbers of Linux system calls: each text has, after a number, the names of the calls from that number on.

Written by scripts/syscall_numbers.py. The source are the kernel's headers, `asm/unistd.h` and what they include.
"""
'''
COMMENTS = {
    "TIME64": "The calls of 32-bit ABIs that have 64-bit times, since Linux 5.1.",
    "COMMON": "The calls since Linux 5.1 have the same number everywhere.",
}


def numbers(header: str, folder: str) -> dict[int, str]:
    """The calls that a header defines, by number."""
    source = f"#include <{header}>\n"
    macros = re.findall(r"^#define (__(?:ARM_)?NR_([a-z_]\w*))", preprocess(source, folder, "-dM"), re.MULTILINE)
    source += "".join(f"call {name} = {macro}\n" for macro, name in macros if name not in NO_CALLS)
    found: dict[int, str] = {}
    for name, value in re.findall(r"^call (\w+) = (.*)", preprocess(source, folder), re.MULTILINE):
        number = sum(int(term, 0) for term in re.findall(r"\w+", value))  # "((0x900000 +0x0f0000) +2)"
        found[number] = min(name, found.get(number, name))
    return found


def preprocess(source: str, folder: str, *options: str) -> str:
    """What the C preprocessor makes of a text."""
    # Of the ABIs of arm, the only one that today's kernels run beside aarch64.
    command = ["cc", "-E", "-P", "-nostdinc", "-D__ARM_EABI__", "-I", folder, *options, "-"]
    return subprocess.run(command, input=source, stdout=subprocess.PIPE, text=True, check=True).stdout


def shared(tables: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
    """Take out what several ABIs have alike; for COMMON the rare exception is the kernel's to refuse."""
    texts = {abi: {n: name for n, name in table.items() if not TIME64 <= n < 1000} for abi, table in tables.items()}
    time64 = [{n: name for n, name in tables[abi].items() if TIME64 <= n < COMMON} for abi in THIRTY_TWO_BITS]
    common: dict[int, str] = {}
    for table in tables.values():
        for number, name in table.items():
            if COMMON <= number < 1000 and common.setdefault(number, name) != name:
                raise SystemExit(f"{number} is {name} and {common[number]}")
    if time64[0] != time64[1]:
        raise SystemExit("the calls with 64-bit times differ")
    texts |= {"TIME64": time64[0], "COMMON": common}
    for text, more in LATER.items():
        texts[text] = more | texts[text]
    return texts


def runs(table: dict[int, str]) -> str:
    """A table as words, on lines of at most 120 columns."""
    words = []
    for number in sorted(table):
        words += [table[number]] if number - 1 in table else [str(number), table[number]]
    return "\n".join(textwrap.wrap(" ".join(words), 120))


def main() -> None:
    """Print the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="", help="where the packages are unpacked, if not in /")
    options = parser.parse_args()
    tables = {abi: numbers(header, f"{options.root}/{folder}") for abi, (header, folder) in HEADERS.items()}
    print(HEAD)
    for name, table in shared(tables).items():
        if name in COMMENTS:
            print(f"# {COMMENTS[name]}")
        print(f'{name} = """\n{runs(table)}\n"""')


if __name__ == "__main__":
    main()
