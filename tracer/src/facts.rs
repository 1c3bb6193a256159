//! Which arguments of a call are worth keeping: flags, commands, kinds. No buffers, no sizes, no addresses.
//!
//! Input: name of a call. Output: numbers of arguments, from 0, as in the prototypes of the kernel
//! (`include/linux/syscalls.h`; section 2 of the manual).

/// Arguments that are flags or commands.
pub(crate) fn of_interest(call: &str) -> &'static [usize] {
    match call {
        "arch_prctl"
        | "bpf"
        | "clone"
        | "epoll_create1"
        | "fsopen"
        | "getrusage"
        | "inotify_init1"
        | "io_uring_enter"
        | "keyctl"
        | "landlock_restrict_self"
        | "membarrier"
        | "mlockall"
        | "personality"
        | "prctl"
        | "ptrace"
        | "reboot"
        | "rt_sigaction"
        | "rt_sigprocmask"
        | "sysfs"
        | "unshare"
        | "userfaultfd"
        | "clock_gettime"
        | "clock_settime"
        | "clock_getres"
        | "getitimer"
        | "setitimer"
        | "getrlimit"
        | "setrlimit"
        | "ioprio_get"
        | "ioprio_set"
        | "getpriority"
        | "setpriority" => &[0],
        "access" | "dup3" | "eventfd2" | "fcntl" | "flock" | "futex" | "ioctl" | "io_uring_register" | "kill"
        | "memfd_create" | "memfd_secret" | "open" | "pidfd_open" | "pipe2" | "prlimit64" | "quotactl"
        | "sched_setscheduler" | "setns" | "shutdown" | "swapon" | "syslog" | "timerfd_settime" | "umount2"
        | "finit_module" | "fspick" => &[1],
        "close_range" | "faccessat" | "getrandom" | "lseek" | "madvise" | "mprotect" | "msync" | "openat"
        | "recvmsg" | "sendmsg" | "statx" | "tgkill" | "unlinkat" | "wait4" | "rseq" | "semctl" | "shmget"
        | "msgget" | "pkey_mprotect" | "open_by_handle_at" | "rt_tgsigqueueinfo" | "preadv2" | "add_key" => &[2],
        "accept4" | "faccessat2" | "fadvise64" | "mount" | "mremap" | "newfstatat" | "recvfrom" | "sendto"
        | "signalfd4" | "splice" | "tee" | "recvmmsg" | "sendmmsg" | "vmsplice" => &[3],
        "linkat" | "name_to_handle_at" | "renameat2" => &[4],
        "socket" | "socketpair" => &[0, 1, 2],
        "mmap" => &[2, 3],
        "setsockopt" | "getsockopt" => &[1, 2],
        "shmctl" | "msgctl" | "epoll_ctl" | "fallocate" | "timerfd_create" => &[1],
        "seccomp" | "clock_nanosleep" => &[0, 1],
        "waitid" => &[0, 3],
        _ => &[],
    }
}

/// Arguments that are paths.
pub(crate) fn paths(call: &str) -> &'static [usize] {
    match call {
        "open" | "stat" | "lstat" | "access" | "execve" | "truncate" | "chdir" | "mkdir" | "rmdir" | "creat"
        | "unlink" | "readlink" | "chmod" | "chown" | "lchown" | "utime" | "mknod" | "statfs" | "chroot"
        | "umount2" | "swapon" | "swapoff" | "utimes" | "setxattr" | "lsetxattr" | "getxattr" | "lgetxattr"
        | "listxattr" | "llistxattr" | "removexattr" | "lremovexattr" | "acct" | "uselib" => &[0],
        "openat" | "openat2" | "mkdirat" | "mknodat" | "fchownat" | "futimesat" | "newfstatat" | "unlinkat"
        | "readlinkat" | "fchmodat" | "fchmodat2" | "faccessat" | "faccessat2" | "utimensat" | "execveat" | "statx"
        | "name_to_handle_at" | "inotify_add_watch" => &[1],
        "rename" | "link" | "symlink" | "pivot_root" | "mount" => &[0, 1],
        "renameat" | "renameat2" | "linkat" => &[1, 3],
        "symlinkat" => &[0, 2],
        _ => &[],
    }
}
