//! The little of the telnet protocol (RFC 854, 1073) that busybox's telnetd speaks with a terminal that is raw already:
//! its offers are taken out of what it sends, the window's size is told to it, and a byte 255 is written twice.

/// Interpret as command: what follows is not for the terminal.
const IAC: u8 = 255;
/// Begin and end of a subnegotiation.
const SB: u8 = 250;
const SE: u8 = 240;
/// The first of WILL, WON'T, DO and DON'T, which are followed by an option.
const WILL: u8 = 251;
/// Negotiate about window size.
const NAWS: u8 = 31;

/// Takes the protocol's own bytes out of what a server sends, however it is cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    spoke: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Text.
    #[default]
    Text,
    /// After an IAC.
    Command,
    /// After one that is followed by an option.
    Option,
    /// In a subnegotiation, and whether its last byte was an IAC.
    Sub(bool),
}

impl Decoder {
    /// The text among `bytes`.
    pub(crate) fn text(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.spoke |= !bytes.is_empty();
        bytes.iter().filter_map(|byte| self.step(*byte)).collect()
    }

    /// Whether the server has sent anything yet.
    pub(crate) fn spoke(&self) -> bool {
        self.spoke
    }

    fn step(&mut self, byte: u8) -> Option<u8> {
        let mut text = None;
        self.state = match (self.state, byte) {
            (State::Text, IAC) => State::Command,
            (State::Text, byte) => {
                text = Some(byte);
                State::Text
            }
            (State::Command, IAC) => {
                text = Some(IAC);
                State::Text
            }
            (State::Command, SB) => State::Sub(false),
            (State::Command, command) if command >= WILL => State::Option,
            (State::Command | State::Option, _) | (State::Sub(true), SE) => State::Text,
            (State::Sub(_), byte) => State::Sub(byte == IAC),
        };
        text
    }
}

/// What is typed, as the server takes it.
pub(crate) fn typed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == IAC { 2 } else { 1 })).collect()
}

/// Tells the server how large the terminal's window is.
pub(crate) fn window(columns: u16, rows: u16) -> Vec<u8> {
    let size = [columns.to_be_bytes(), rows.to_be_bytes()].concat();
    [&[IAC, SB, NAWS], typed(&size).as_slice(), &[IAC, SE]].concat()
}

#[cfg(test)]
mod tests {
    use super::{Decoder, typed, window};

    #[test]
    fn what_is_not_for_the_terminal_is_taken_out_wherever_it_is_cut() {
        // DO ECHO, a subnegotiation with an IAC in it, a lone command, and a byte 255 of the text.
        let sent = b"a\xff\xfd\x01b\xff\xfa\x1f\xff\xff\x01\xff\xf0c\xff\xf1d\xff\xffe";
        for cut in 0..sent.len() {
            let (first, second) = sent.split_at(cut);
            let mut decoder = Decoder::default();
            let text = [decoder.text(first), decoder.text(second)].concat();
            assert_eq!(text, b"abcd\xffe", "cut at {cut}");
        }
    }

    #[test]
    fn a_byte_255_is_written_twice() {
        assert_eq!(typed(b"a\xffb"), b"a\xff\xffb");
        assert_eq!(window(255, 40), b"\xff\xfa\x1f\x00\xff\xff\x00\x28\xff\xf0");
    }
}
