//! How the host's side of a network adapter behaves, and how it lies.

/// Which messages a lie is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Those of NVSP: in packets and completions.
    Nvsp,
    /// Those of RNDIS: in the receive buffer.
    Rndis,
}

/// One word of one kind of message is always something else than it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lie {
    /// In which messages.
    pub layer: Layer,
    /// Of which type.
    pub kind: u32,
    /// Which 32-bit word, counted from 0: the type itself.
    pub word: usize,
    /// What is there instead.
    pub value: u32,
}

/// What becomes of the guest's frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Far {
    /// They come back, source and destination exchanged. The guest's frame is completed when its echo is on the way, so
    /// that nothing is lost.
    #[default]
    Echo,
    /// They go nowhere.
    Nowhere,
}

/// How the host's side of a network adapter behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Versions that it accepts.
    pub versions: Vec<u32>,
    /// The adapter's address.
    pub address: [u8; 6],
    /// Bytes of the longest payload of a frame.
    pub mtu: u32,
    /// Bytes of each part of the receive buffer.
    pub part_bytes: u32,
    /// At most so many parts.
    pub most_parts: u32,
    /// Bytes of each section of the send buffer.
    pub section_bytes: u32,
    /// Queues that it can have.
    pub queues: u16,
    /// How many frames it puts into one packet.
    pub frames_per_packet: usize,
    /// It completes the guest's frames in random order, and late.
    pub reorders: bool,
    /// It can do checksums and segmentation.
    pub offloads: bool,
    /// It answers no question: objects are all unknown but the address.
    pub knows_little: bool,
    /// What becomes of the guest's frames.
    pub far: Far,
    /// What is not as it should be.
    pub lies: Vec<Lie>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            versions: vec![2, 0x3_0002, 0x4_0000, 0x5_0000, 0x6_0000, 0x6_0001],
            address: [0x00, 0x15, 0x5d, 1, 2, 3],
            mtu: 1500,
            part_bytes: 1728,
            most_parts: u32::MAX,
            section_bytes: 6144,
            queues: 4,
            frames_per_packet: 4,
            reorders: false,
            offloads: true,
            knows_little: false,
            far: Far::Echo,
            lies: Vec::new(),
        }
    }
}

impl NetworkSettings {
    /// The same with one more lie.
    #[must_use]
    pub fn with_lie(mut self, layer: Layer, kind: u32, word: usize, value: u32) -> Self {
        self.lies.push(Lie { layer, kind, word, value });
        self
    }

    /// Replaces what is not to be told.
    pub(super) fn lie(&self, layer: Layer, message: &mut [u8]) {
        let Some(kind) = message.first_chunk().map(|kind| u32::from_le_bytes(*kind)) else { return };
        for lie in self.lies.iter().filter(|lie| (lie.layer, lie.kind) == (layer, kind)) {
            let place = lie.word.checked_mul(4).and_then(|at| message.get_mut(at..)).and_then(<[u8]>::first_chunk_mut);
            if let Some(place) = place {
                *place = lie.value.to_le_bytes();
            }
        }
    }
}
