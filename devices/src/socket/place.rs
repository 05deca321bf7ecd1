//! Where an address is meant: on which bus, or in the kernel. What makes one source run on all families.

use std::io;

use super::{Sockets, VmSocketAddr};

/// An address and the sockets that it is an address of.
#[derive(Debug, Clone)]
pub struct Place {
    pub(super) sockets: Sockets,
    pub(super) addr: VmSocketAddr,
}

impl Place {
    /// The address.
    #[must_use]
    pub fn addr(&self) -> VmSocketAddr {
        self.addr
    }

    /// Whose address it is.
    #[must_use]
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }
}

/// What names a place: an address alone (the kernel's AF_VSOCK), its text, or one of certain [`Sockets`].
pub trait ToPlace {
    /// The place.
    ///
    /// # Errors
    /// `InvalidInput` for text that is no address.
    fn to_place(&self) -> io::Result<Place>;
}

impl ToPlace for Place {
    fn to_place(&self) -> io::Result<Place> {
        Ok(self.clone())
    }
}

impl ToPlace for VmSocketAddr {
    fn to_place(&self) -> io::Result<Place> {
        Ok(Sockets::kernel().at(*self))
    }
}

impl ToPlace for (u32, u32) {
    fn to_place(&self) -> io::Result<Place> {
        VmSocketAddr::from(*self).to_place()
    }
}

impl ToPlace for str {
    fn to_place(&self) -> io::Result<Place> {
        let addr: VmSocketAddr = self.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        addr.to_place()
    }
}

impl ToPlace for String {
    fn to_place(&self) -> io::Result<Place> {
        self.as_str().to_place()
    }
}

impl<P: ToPlace + ?Sized> ToPlace for &P {
    fn to_place(&self) -> io::Result<Place> {
        (**self).to_place()
    }
}
