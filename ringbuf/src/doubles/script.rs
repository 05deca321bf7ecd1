//! Bytes that decide what a test does, from a fuzzer or a property test.

/// A script of bytes, read from the front. An exhausted script yields zeroes.
#[derive(Debug, Clone, Copy)]
pub struct Script<'s> {
    bytes: &'s [u8],
}

impl<'s> Script<'s> {
    /// A script of these bytes.
    #[must_use]
    pub const fn new(bytes: &'s [u8]) -> Self {
        Self { bytes }
    }

    /// Whether all bytes were used.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Splits a quarter off for another purpose.
    #[must_use]
    pub fn split_off(&mut self) -> Self {
        let (rest, taken) = self.bytes.split_at(self.bytes.len() - self.bytes.len() / 4);
        self.bytes = rest;
        Self { bytes: taken }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut value = [0; N];
        let (taken, rest) = self.bytes.split_at(N.min(self.bytes.len()));
        for (to, from) in value.iter_mut().zip(taken) {
            *to = *from;
        }
        self.bytes = rest;
        value
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u32) -> u32 {
        if end <= 256 { u32::from(self.byte()) % end } else { u32::from(self.u16()) % end }
    }
}
