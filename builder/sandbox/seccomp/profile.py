"""Which system calls a RUN may make: those that a container of Docker may that has Docker's default capabilities.

The source is `seccomp/default.json` of github.com/moby/profiles, which knows the calls of Linux 6.13; what depends on
capabilities there is resolved for the default ones, and what depends on the kernel for one that can run a sandbox at
all. Two things differ. The x32 ABI is refused as a whole: hardly a kernel has it. And what runc answers to numbers
above the largest that the profile has, ENOSYS, is the answer here to all numbers without a name.
"""

import errno
from collections.abc import Mapping

from layers.data import dataclass

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
KILL = 0x80000000
"""SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF and SECCOMP_RET_KILL_PROCESS of linux/seccomp.h."""


def fail(number: int) -> int:
    """SECCOMP_RET_ERRNO: the call is not made, and fails with this errno."""
    return 0x00050000 | number


REFUSE = fail(errno.EPERM)
UNKNOWN = fail(errno.ENOSYS)
"""For calls newer than the profile, and all others without a name: a C library then falls back to what it knows."""


@dataclass(frozen=True, slots=True)
class Among:
    """One thing if an argument, masked, is one of these values, and another if not.

    Only the low 32 bits count: the kernel too takes no more of the arguments that are looked at here.
    """

    argument: int
    values: frozenset[int]
    mask: int = 0xFFFFFFFF
    then: int = ALLOW
    otherwise: int = REFUSE


Verdict = int | Among
"""What becomes of a call: a SECCOMP_RET_* value, or that depends."""


def verdict(call: str) -> Verdict:
    """What becomes of a call that has a name."""
    return SPECIAL.get(call, ALLOW if call in ALLOWED else REFUSE)


_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of linux/sched.h."""

_PERSONALITIES = frozenset({0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF})
"""PER_LINUX and PER_LINUX32, each with or without UNAME26, and the question which one it is."""

_FAMILIES = frozenset(range(46)) - {12, 19, 20, 23, 25, 34, 37, 38, 40}
"""The AF_* of linux/socket.h but for AF_ALG (38), which exposes the kernel's cryptography; AF_VSOCK (40), which reaches
the host of a virtual machine and its neighbours; and seven that Linux has dropped. They are still open to 32-bit
programs of x86, through socketcall(2), whose arguments a filter cannot see; so they are with Docker."""

SPECIAL: Mapping[str, Verdict] = {
    "clone": Among(0, frozenset({0}), mask=_NEW_NAMESPACES),
    # Its flags are in memory, where a filter cannot look; without it, C libraries use clone.
    "clone3": fail(errno.ENOSYS),
    "personality": Among(0, _PERSONALITIES),
    "socket": Among(0, _FAMILIES),
}

_ALLOWED = (
    # Files: to open, read and write them,
    "open openat openat2 creat close close_range name_to_handle_at memfd_create memfd_secret"
    " read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek"
    " sendfile sendfile64 copy_file_range splice tee vmsplice readahead fadvise64 fadvise64_64 arm_fadvise64_64"
    " truncate truncate64 ftruncate ftruncate64 fallocate cachestat"
    " sync syncfs fsync fdatasync sync_file_range arm_sync_file_range"
    # what they are and who may do what,
    " stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx"
    " access faccessat faccessat2 chmod fchmod fchmodat fchmodat2 umask"
    " chown chown32 lchown lchown32 fchown fchown32 fchownat"
    " utime utimes futimesat utimensat utimensat_time64"
    " getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat"
    " listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat"
    # their names, folders and file systems,
    " link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2"
    " mkdir mkdirat rmdir mknod mknodat getdents getdents64 chdir fchdir getcwd chroot"
    " statfs statfs64 fstatfs fstatfs64 statmount listmount"
    # and descriptors of them and of other things.
    " dup dup2 dup3 fcntl fcntl64 ioctl flock pipe pipe2 eventfd eventfd2"
    " select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64"
    " epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2"
    " inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark"
    " io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64"
    # Memory,
    " brk mmap mmap2 munmap mremap remap_file_pages mprotect msync madvise mincore mseal"
    " mlock mlock2 mlockall munlock munlockall"
    " pkey_alloc pkey_free pkey_mprotect map_shadow_stack membarrier cacheflush"
    # and what processes share: System V's and POSIX's.
    " ipc shmget shmat shmdt shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semtimedop_time64 semctl"
    " mq_open mq_unlink mq_notify mq_getsetattr"
    " mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64"
    # Processes and threads,
    " fork vfork execve execveat exit exit_group wait4 waitid waitpid pidfd_open process_mrelease"
    " set_tid_address set_robust_list get_robust_list rseq set_thread_area get_thread_area set_tls"
    " arch_prctl modify_ldt prctl uretprobe breakpoint restart_syscall"
    " futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue"
    # tracing them, which no longer can be used to get around a filter (since Linux 4.8),
    " ptrace process_vm_readv process_vm_writev"
    # how they are scheduled and limited,
    " sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam"
    " sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min"
    " sched_rr_get_interval sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getcpu"
    " getrlimit ugetrlimit setrlimit prlimit64 getrusage times"
    # their signals,
    " kill tkill tgkill pidfd_send_signal pause sigaltstack signalfd signalfd4 sigprocmask sigreturn"
    " rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend"
    " rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo"
    # and who they are.
    " getpid getppid gettid getpgrp getpgid setpgid getsid setsid"
    " getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32"
    " getresuid getresuid32 getresgid getresgid32 getgroups getgroups32"
    " setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32"
    " setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32"
    " capget capset seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    # Time.
    " time gettimeofday adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64"
    " clock_gettime clock_gettime64 nanosleep clock_nanosleep clock_nanosleep_time64 alarm getitimer setitimer"
    " timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64"
    " timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64"
    # The network.
    " socketcall socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt"
    " send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64"
    # The machine.
    " uname sysinfo getrandom"
)
ALLOWED = frozenset(_ALLOWED.split())
"""The calls that are allowed whatever their arguments are."""
