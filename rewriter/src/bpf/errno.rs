//! Names of error numbers, for `--action errno:NAME` and `--exec deny:NAME`.
//!
//! Input and output: a name as errno(3) has it, and the number. The numbers are those of the crate `libc` for x86-64.

macro_rules! errors {
    ($($name:ident)*) => {
        const ERRORS: &[(&str, i32)] = &[$((stringify!($name), libc::$name)),*];
    };
}

errors! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE
    EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG ENODATA ETIME ENOLINK EPROTO EBADMSG EOVERFLOW EUSERS
    ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT
    EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN
    ENOTCONN ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED
    EKEYREJECTED
}

/// The number of an error name.
pub(crate) fn number(name: &str) -> Option<u16> {
    ERRORS.iter().find(|(known, _)| *known == name).and_then(|(_, number)| u16::try_from(*number).ok())
}

/// The name of an error number.
#[must_use]
pub fn name(number: u16) -> Option<&'static str> {
    ERRORS.iter().find(|(_, known)| *known == i32::from(number)).map(|(name, _)| *name)
}
