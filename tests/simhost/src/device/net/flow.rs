//! Which queue a frame goes to: the hash of Toeplitz over the addresses and ports of IPv4.

/// Bytes before IPv4's header in a frame.
const ETHERNET: usize = 14;

/// The hash of a frame; `None` for what is not IPv4.
pub(super) fn hash(key: &[u8], frame: &[u8]) -> Option<u32> {
    (frame.get(12..ETHERNET)? == [8, 0]).then_some(())?;
    let header = frame.get(ETHERNET..)?;
    let header_bytes = usize::from(header.first()? & 15) * 4;
    let mut input = header.get(12..20)?.to_vec();
    if header.get(9) == Some(&6) {
        input.extend(header.get(header_bytes..)?.get(..4)?);
    }
    Some(toeplitz(key, &input))
}

/// For each bit of the input that is set, the 32 bits of the key from there on, all combined.
pub(super) fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], place: usize| bytes.get(place / 8).is_some_and(|byte| byte >> (7 - place % 8) & 1 != 0);
    let mut window = (0..32).fold(0_u32, |window, place| window << 1 | u32::from(bit(key, place)));
    let mut hash = 0;
    for place in 0..input.len() * 8 {
        if bit(input, place) {
            hash ^= window;
        }
        window = window << 1 | u32::from(bit(key, place + 32));
    }
    hash
}

#[cfg(test)]
mod tests {
    /// From the verification suite that Microsoft has published for the function.
    #[test]
    fn toeplitz_as_published() {
        const KEY: [u8; 40] = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
            0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
            0xbe, 0xac, 0x01, 0xfa,
        ];
        let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
        assert_eq!(super::toeplitz(&KEY, &input), 0x51cc_c178);
        assert_eq!(super::toeplitz(&KEY, &input[..8]), 0x323e_8fc2);
    }
}
