//! What `nc`, `forward` and `echo` are made of: addresses, whoever carries VM sockets, ends of connections, a service.

pub(crate) mod address;
pub(crate) mod carried;
pub(crate) mod carrier;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod service;
pub(crate) mod stop;
