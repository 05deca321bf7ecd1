//! Memory of a hostile peer: it changes between any two accesses, by a script, so that every run can be repeated.

use core::cell::{Cell, RefCell};

use crate::doubles::{PlainMemory, Script};
use crate::layout::ControlField;
use crate::memory::Memory;
use crate::packet::{Descriptor, PacketType};

/// Ring memory that mutates itself on every access of its user, as its script says.
#[derive(Debug)]
pub struct HostileMemory<'s> {
    ring: PlainMemory,
    script: RefCell<Script<'s>>,
    accesses: Cell<u64>,
}

impl<'s> HostileMemory<'s> {
    /// A ring of `data_bytes` that starts empty.
    #[must_use]
    pub fn new(data_bytes: u32, script: Script<'s>) -> Self {
        Self { ring: PlainMemory::new(data_bytes), script: RefCell::new(script), accesses: Cell::new(0) }
    }

    /// Accesses so far: to show that an operation is bounded.
    #[must_use]
    pub fn accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// Whether no mutation will come any more.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.script.borrow().is_exhausted()
    }

    /// The memory, for a test that sets it up.
    #[must_use]
    pub const fn ring(&self) -> &PlainMemory {
        &self.ring
    }

    /// One step of the script. About half of the steps change nothing.
    fn mutate(&self) {
        self.accesses.set(self.accesses.get() + 1);
        let mut script = self.script.borrow_mut();
        if script.is_exhausted() {
            return;
        }
        let size = self.ring.data_bytes().max(8);
        let index = |script: &mut Script<'_>| (script.u32() % size) & !7;
        match script.byte() {
            // Anything at all in any field.
            choice @ 128..144 => {
                let field = ControlField::ALL.into_iter().cycle().nth(usize::from(choice));
                self.ring.store(field.unwrap_or(ControlField::WriteIndex), script.u32());
            }
            // A possible index.
            144..152 => self.ring.store(ControlField::WriteIndex, index(&mut script)),
            152..160 => self.ring.store(ControlField::ReadIndex, index(&mut script)),
            // Forward, as an honest peer would go.
            160..176 => self.forward(ControlField::WriteIndex, u32::from(script.byte()) * 8),
            176..192 => self.forward(ControlField::ReadIndex, u32::from(script.byte()) * 8),
            192..200 => self.ring.store(ControlField::PendingSendSize, index(&mut script)),
            200..208 => self.ring.store(ControlField::InterruptMask, u32::from(script.byte() & 1)),
            // Any word of the data, but the ones around the indices more often.
            208..220 => {
                let at = index(&mut script);
                self.ring.store_words(at, [script.u64()]);
            }
            220..228 => {
                let at = self.ring.load(ControlField::ReadIndex);
                self.ring.store_words(at, [script.u64()]);
            }
            // A packet of a known type, nearly sound, at either index.
            choice @ 228..=255 => self.packet(choice, &mut script),
            0..128 => {}
        }
    }

    fn forward(&self, field: ControlField, bytes: u32) {
        let size = self.ring.data_bytes().max(8);
        self.ring.store(field, self.ring.load(field).wrapping_add(bytes) % size);
    }

    fn packet(&self, choice: u8, script: &mut Script<'_>) {
        let kinds = [PacketType::IN_BAND, PacketType::TRANSFER_PAGES, PacketType::GPA_DIRECT, PacketType::COMPLETION];
        let kind = kinds.into_iter().cycle().nth(usize::from(choice)).unwrap_or(PacketType::IN_BAND);
        let payload_offset8 = 2 + u16::from(script.byte() % 16);
        let length8 = payload_offset8 + u16::from(script.byte());
        let descriptor = Descriptor::new(kind, payload_offset8, length8, 1, script.u64());
        let field = if choice < 242 { ControlField::ReadIndex } else { ControlField::WriteIndex };
        let at = self.ring.load(field);
        let [first, second] = descriptor.to_words();
        // Ranges: a small count, then whatever is there.
        let count = u64::from(script.byte() % 8) << 32;
        self.ring.store_words(at, [first, second, count, script.u64()]);
        if field == ControlField::WriteIndex {
            self.forward(field, u32::from(length8) * 8 + 8);
        }
    }
}

impl Memory for HostileMemory<'_> {
    fn data_bytes(&self) -> u32 {
        self.ring.data_bytes()
    }

    fn load(&self, field: ControlField) -> u32 {
        self.mutate();
        self.ring.load(field)
    }

    fn store(&self, field: ControlField, value: u32) {
        self.ring.store(field, value);
        self.mutate();
    }

    fn store_then_fence(&self, field: ControlField, value: u32) {
        self.ring.store_then_fence(field, value);
        self.mutate();
    }

    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        // Between the words of one load, too.
        core::array::from_fn(|index| {
            self.mutate();
            let behind = u32::try_from(index * 8).unwrap_or(0);
            let [word] = self.ring.load_words(offset.wrapping_add(behind) % self.data_bytes().max(8));
            word
        })
    }

    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        self.ring.store_words(offset, words);
        self.mutate();
    }

    fn read(&self, offset: u32, destination: &mut [u8]) {
        self.mutate();
        self.ring.read(offset, destination);
    }

    fn write(&self, offset: u32, source: &[u8]) {
        self.ring.write(offset, source);
        self.mutate();
    }
}
