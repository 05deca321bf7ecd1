//! Random numbers that one integer decides: splitmix64, written here so that no seed comes from anywhere else.
//!
//! Format: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), the 64-bit finaliser.

/// A stream of numbers, the same for the same seed on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream of its own, for a part that must not disturb the others by how much it draws.
    #[must_use]
    pub fn fork(&self, label: u64) -> Self {
        let mut of_label = Self::new(label ^ 0x6a09_e667_f3bc_c909);
        let mut forked = Self::new(self.state ^ of_label.next_u64());
        forked.next_u64();
        forked
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The upper half of the next number.
    pub fn next_u32(&mut self) -> u32 {
        let [.., a, b, c, d] = self.next_u64().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// A number below `limit`; zero where that is zero. The bias of the remainder does not matter here.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64().checked_rem(limit).unwrap_or(0)
    }

    /// An index of something that has `length` entries; zero where there are none.
    pub fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(length)).unwrap_or(0)
    }

    /// True `chance` times in `of`.
    pub fn chance(&mut self, chance: u32, of: u32) -> bool {
        self.below(u64::from(of)) < u64::from(chance)
    }

    /// One of the entries, or nothing of an empty slice.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.index(of.len()))
    }

    /// 16 bytes, for a GUID.
    pub fn guid(&mut self) -> uuid::Uuid {
        uuid::Uuid::from_u64_pair(self.next_u64(), self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    /// The published first numbers of the generator with seed 1234567.
    #[test]
    fn the_stream_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!([random.next_u64(), random.next_u64()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn a_fork_goes_its_own_way_and_leaves_the_trunk_alone() {
        let (mut trunk, mut twin) = (Random::new(7), Random::new(7));
        let mut forked = trunk.fork(1);
        assert_ne!(forked.next_u64(), trunk.clone().next_u64());
        assert_ne!(trunk.fork(1).next_u64(), trunk.fork(2).next_u64());
        assert_eq!(trunk.next_u64(), twin.next_u64());
    }
}
