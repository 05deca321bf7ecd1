//! Errors of sockets, as errors of the library, which have exit codes.

use std::io;

use vmbus::Error;

/// What went wrong on a socket. (An io::Error by itself would be taken for one of standard output.)
pub(crate) fn of_socket(action: &'static str, place: impl AsRef<str>, error: io::Error) -> Error {
    Error::io(action, place.as_ref(), error)
}

/// The same for VM sockets, some of whose errors tell what is missing.
pub(crate) fn of_vm_socket(action: &'static str, place: impl AsRef<str>, error: io::Error) -> Error {
    let no_family = rustix::io::Errno::from_io_error(&error)
        .is_some_and(|errno| [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::NODEV].contains(&errno));
    if no_family {
        return Error::Unsupported {
            device: place.as_ref().to_owned(),
            what: "the kernel has no AF_VSOCK transport for it".to_owned(),
            hint: "run `modprobe hv_sock` in a guest of Hyper-V, `modprobe vsock_loopback` for local:PORT, or name another \
                   way with --link"
                .to_owned(),
        };
    }
    let refused = "nobody listens there; start the service, or look at the port";
    let error = match error.kind() {
        io::ErrorKind::ConnectionRefused => io::Error::new(error.kind(), refused),
        _ => error,
    };
    of_socket(action, place, error)
}
