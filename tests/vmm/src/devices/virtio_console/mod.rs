//! The agent's line: a virtio console with one port, `/dev/vport0p1` in the guest, whose bytes go to an [`Endpoint`].
//!
//! Output is taken in the notifying exit itself, because Linux spins until it is. Input is put into the guest's buffers by
//! the thread that reads the far end, and by the exit that brings new buffers.

mod output;
mod ports;
mod threads;
mod transport;

use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use self::output::Output;
use self::ports::{Control, Ports};
use self::transport::{Asked, Registers, STATUS};
use crate::endpoint::Endpoint;
use crate::exits::Mmio;

/// Queues: of a port 0 that is not there, of control messages, and of the agent's port; each in, then out.
const QUEUES: usize = 6;
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
const AGENT_IN: usize = 4;
const AGENT_OUT: usize = 5;

/// Longest text of one buffer of the guest; drivers send 32 KiB at most.
const CHUNK_AT_MOST: u64 = 1 << 20;

/// Interrupts the guest.
type Interrupt = Box<dyn Fn() + Send + Sync>;

/// The console.
pub struct VirtioConsole {
    shared: Arc<Shared>,
}

struct Shared {
    memory: GuestMemoryMmap,
    interrupt: Interrupt,
    state: Mutex<State>,
    /// Signalled when input was delivered.
    delivered: Condvar,
    output: Output,
}

struct State {
    registers: Registers,
    ports: Ports,
    /// Input on its way to the guest, and how much of it is there already.
    input: Vec<u8>,
    sent: usize,
}

impl VirtioConsole {
    /// A console with no far end yet: see [`Self::connect`].
    #[must_use]
    pub fn new(memory: GuestMemoryMmap, interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        let state = State {
            registers: Registers::new(QUEUES, ports::AGENT_PORT + 1),
            ports: Ports::default(),
            input: Vec::new(),
            sent: 0,
        };
        let shared = Shared {
            memory,
            interrupt: Box::new(interrupt),
            state: Mutex::new(state),
            delivered: Condvar::new(),
            output: Output::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Connects the port to `endpoint`, by two threads that end with the process.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn connect(&self, endpoint: Endpoint) -> Result<()> {
        threads::start(&self.shared, endpoint)
    }
}

impl VirtioConsole {
    /// As the machine's reset leaves it: nothing of the guest's memory is touched before a driver comes.
    pub fn reset(&self) {
        self.write(STATUS, &[0; 4]);
    }
}

impl std::fmt::Debug for VirtioConsole {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("VirtioConsole").finish_non_exhaustive()
    }
}

impl Mmio for VirtioConsole {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let register = self.shared.lock().registers.read(offset & !3).to_le_bytes();
        let skip = usize::try_from(offset & 3).unwrap_or(0);
        for (byte, value) in data.iter_mut().zip(register.iter().skip(skip).chain(std::iter::repeat(&0))) {
            *byte = *value;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else {
            log::debug!(target: "vmbus::vmm", "virtio register {offset:#x}: {} bytes ignored", data.len());
            return;
        };
        let mut state = self.shared.lock();
        match state.registers.write(offset, value) {
            Asked::Nothing => {}
            Asked::Reset => {
                state.ports = Ports::default();
                state.input.clear();
                state.sent = 0;
                self.shared.delivered.notify_all();
            }
            Asked::Notify(queue) => self.shared.look_at(&mut state, usize::try_from(queue).unwrap_or(usize::MAX)),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the driver's notification of `queue` makes possible.
    fn look_at(&self, state: &mut State, queue: usize) {
        let interrupts = match queue {
            CONTROL_OUT => self.hear(state) | self.answer(state) | self.deliver(state),
            CONTROL_IN => self.answer(state),
            AGENT_OUT => self.take(state),
            AGENT_IN => self.deliver(state),
            _ => false,
        };
        self.interrupt_if(state, interrupts);
    }

    /// Hands more input to the guest. The input before must be delivered.
    fn input(&self, state: &mut State, bytes: &[u8]) {
        state.input.clear();
        state.input.extend_from_slice(bytes);
        state.sent = 0;
        let interrupts = self.deliver(state);
        self.interrupt_if(state, interrupts);
    }

    fn interrupt_if(&self, state: &mut State, wanted: bool) {
        if wanted {
            state.registers.raise_used();
            (self.interrupt)();
        }
    }

    /// Control messages of the driver.
    fn hear(&self, state: &mut State) -> bool {
        let ports = &mut state.ports;
        let heard = drain(state.registers.queues.get_mut(CONTROL_OUT), &self.memory, |chain| {
            let mut said = [0; 8];
            let read = chain.reader(&self.memory).ok().map(|mut reader| reader.read_exact(&mut said));
            if matches!(read, Some(Ok(()))) {
                ports.hear(Control::from_bytes(said));
            }
            Some(0)
        });
        settle(&mut state.registers, heard)
    }

    /// Control messages to the driver, as far as it has buffers.
    fn answer(&self, state: &mut State) -> bool {
        let pending = &mut state.ports.pending;
        if pending.is_empty() {
            return false;
        }
        let answered = drain(state.registers.queues.get_mut(CONTROL_IN), &self.memory, |chain| {
            let bytes = pending.front()?.to_bytes();
            pending.pop_front();
            let written = chain.writer(&self.memory).ok().map(|mut writer| writer.write_all(&bytes));
            Some(if matches!(written, Some(Ok(()))) { 8 } else { 0 })
        });
        settle(&mut state.registers, answered)
    }

    /// Output of the guest.
    fn take(&self, state: &mut State) -> bool {
        let taken = drain(state.registers.queues.get_mut(AGENT_OUT), &self.memory, |chain| {
            let mut bytes = Vec::new();
            if let Ok(reader) = chain.reader(&self.memory) {
                // A reader of guest memory fails only where the buffer ends.
                let _ = reader.take(CHUNK_AT_MOST).read_to_end(&mut bytes);
            }
            self.output.push(&bytes);
            Some(0)
        });
        settle(&mut state.registers, taken)
    }

    /// Input to the guest, as far as it has buffers and somebody to read them.
    fn deliver(&self, state: &mut State) -> bool {
        if !state.ports.open || state.sent >= state.input.len() {
            return false;
        }
        let (input, sent) = (&state.input, &mut state.sent);
        let delivered = drain(state.registers.queues.get_mut(AGENT_IN), &self.memory, |chain| {
            let rest = input.get(*sent..).filter(|rest| !rest.is_empty())?;
            let length = chain.writer(&self.memory).ok().and_then(|mut writer| writer.write(rest).ok()).unwrap_or(0);
            *sent += length;
            Some(u32::try_from(length).unwrap_or(0))
        });
        if state.sent >= state.input.len() {
            self.delivered.notify_all();
        }
        settle(&mut state.registers, delivered)
    }
}

/// A chain of the guest's buffers.
type Chain<'a> = DescriptorChain<&'a GuestMemoryMmap>;

/// Gives the chains of a queue to `each` and then back to the driver with the number of bytes written to them, until
/// there are none, or `each` has nothing for the next one. Whether the driver wants an interrupt.
fn drain<'a>(
    queue: Option<&mut Queue>,
    memory: &'a GuestMemoryMmap,
    mut each: impl FnMut(Chain<'a>) -> Option<u32>,
) -> Result<bool, virtio_queue::Error> {
    let Some(queue) = queue.filter(|queue| queue.ready()) else { return Ok(false) };
    let mut used = false;
    loop {
        queue.disable_notification(memory)?;
        while let Some(chain) = queue.pop_descriptor_chain(memory) {
            let head = chain.head_index();
            let Some(written) = each(chain) else {
                queue.go_to_previous_position();
                queue.enable_notification(memory)?;
                return Ok(used && queue.needs_notification(memory)?);
            };
            queue.add_used(memory, head, written)?;
            used = true;
        }
        // True: more came before the driver could know that it must notify.
        if !queue.enable_notification(memory)? {
            return Ok(used && queue.needs_notification(memory)?);
        }
    }
}

/// A queue that points nowhere is the driver's mistake, and said to it.
fn settle(registers: &mut Registers, interrupts: Result<bool, virtio_queue::Error>) -> bool {
    interrupts.unwrap_or_else(|error| {
        log::debug!(target: "vmbus::vmm", "virtio console: {error}");
        registers.fail();
        false
    })
}

#[cfg(test)]
mod tests;
