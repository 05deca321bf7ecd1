//! The command line: subcommands, options and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use vmbus::bind::DEFAULT_STATE_DIRECTORY;
use vmbus::message::Version;

use crate::commands::sim::bridge::{self, Published, Service};
use crate::commands::sim::fault::{self, Fault};
use crate::exit;
use crate::link::{Link, SocketLink};
use crate::selector::SelectorParser;
use crate::sockets::address::{self, Address, VmAddress};

const SELECTOR_HELP: &str = "The device: class name (balloon, nic, ...), class GUID, instance GUID, relid, or uioN";

/// Lists VMBus devices, hands them to user space and back, and drives them.
#[derive(Debug, Parser)]
#[command(name = "vmbusctl", version, after_help = exit::TABLE, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Print JSON on standard output, errors included ({"error": {...}})
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// What to log on standard error: a level (error, warn, info, debug, trace) or `target=level,...`
    ///
    /// Without it the variables VMBUS_LOG and RUST_LOG are asked, in this order; without them `balloon`,
    /// `watch`, `sim`, `forward` and `echo` log warnings and every other command errors.
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Where the journal of bindings is kept
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_STATE_DIRECTORY)]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) state_directory: PathBuf,
    /// Look at the machine below this folder, which has `sys`, `proc` and `dev` (for tests)
    #[arg(long, global = true, value_name = "PATH", default_value = "/", value_hint = ValueHint::DirPath)]
    pub(crate) root: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the devices on the bus
    #[command(after_long_help = exit::POINTER, visible_alias = "ls")]
    List(List),
    /// Show the bus, or one device in depth: driver, holders, rings, channels, counters, journal
    #[command(after_long_help = exit::POINTER)]
    Status(Status),
    /// Take a device from its kernel driver and hand it to user space
    ///
    /// What is done is journalled before it is done, so that `unbind` and `restore` can undo it even after a crash.
    #[command(after_long_help = exit::POINTER)]
    Bind(Bind),
    /// Give a device back to its kernel driver
    #[command(after_long_help = exit::POINTER)]
    Unbind(Unbind),
    /// Undo what was begun on a device and never finished, or on all of them
    ///
    /// Works from the journal alone: also after a crash, and also for devices that are gone meanwhile.
    #[command(after_long_help = exit::POINTER)]
    Restore(Restore),
    /// Look for what keeps drivers from working: kernel, modules, rights, memory; each with its fix
    ///
    /// Exits with 0 if nothing fails, with 1 if something does.
    #[command(after_long_help = exit::POINTER)]
    Doctor(Doctor),
    /// Run the Dynamic Memory driver in the foreground until a signal ends it
    ///
    /// Reports memory pressure to the host, and gives it pages and takes them back as it asks. Tells systemd when it is
    /// ready. SIGINT and SIGTERM end it cleanly: every page is given back first. With --json it prints one JSON object
    /// a line, each with an "event": waiting, opened, negotiated, status, ballooned, deflated, gave_back, rescinded,
    /// closed.
    #[command(after_long_help = exit::POINTER)]
    Balloon(Balloon),
    /// Be a simulated host: guest processes connect to a path over the wire link
    ///
    /// Each guest gets a host of its own, with echo devices, a byte pipe and Dynamic Memory, and with the VM socket services
    /// that --service and --publish name. Ends with SIGINT or SIGTERM.
    #[command(after_long_help = exit::POINTER)]
    Sim(Sim),
    /// Show the whole stack at work against a simulated host, in some seconds, on any machine
    ///
    /// Lists the devices, moves traffic through each class, takes busy channels back, and says what was left behind:
    /// nothing. This is what `vmbusctl` does without a command.
    #[command(after_long_help = exit::POINTER)]
    Demo,
    /// Offer, open, use, close and take back channels at random points on many threads, against a simulated host
    ///
    /// At the end nothing may be left: each offer released once, tables and maps empty, no reference, no stale event,
    /// resident memory where it was (judged from 20000 cycles on). Exits with 1 if one of these does not hold.
    #[command(after_long_help = exit::POINTER)]
    Storm(Storm),
    /// Measure against a yardstick of this machine
    #[command(after_long_help = exit::POINTER, subcommand)]
    Bench(Bench),
    /// Print every arrival and removal on the bus as it happens, until a signal ends it
    ///
    /// All devices are watched, also those with kernel drivers. Each line has the time (UTC), what happened, and the
    /// device as it was then: class, instance, relid, driver. First comes what is there. With --json it prints one
    /// object a line, each with an "event": present, arrived, bound, unbound, removed; and lost, when the kernel had
    /// more to announce than there was room for: what differs then is read from sysfs and follows.
    #[command(after_long_help = exit::POINTER)]
    Watch(Watch),
    /// Connect to a VM socket, or listen for one connection, and carry standard input and output
    ///
    /// The end of standard input is told to the peer (as with the -N of other netcats), and what the peer says is printed
    /// until its end: each direction ends by itself, and with both it is over. A connection that is reset, or whose peer
    /// closes it while there is more to say, is an error.
    #[command(after_long_help = exit::POINTER)]
    Nc(Nc),
    /// Take connections to one socket on to another: TCP, Unix and VM sockets, either way
    ///
    /// Ends are carried over as ends, one direction at a time, and resets as resets, as far as both kinds of socket know
    /// them (the kernel's VM sockets and Unix sockets do not). SIGINT and SIGTERM end it; connections are reset then. With
    /// --json it prints one JSON object a line, each with an "event": listening, connected, refused, closed, reset, ended.
    #[command(after_long_help = exit::POINTER)]
    Forward(Forward),
    /// Be a VM socket service that sends back what it is sent
    ///
    /// Tells what happens, and ends, as `forward` does.
    #[command(after_long_help = exit::POINTER)]
    Echo(Echo),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions { shell: Shell },
    /// Write the manual pages to a folder
    #[command(hide = true)]
    Manpages {
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Say more: -v adds instances and channels, -vv everything sysfs has about each device
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How to print it
    #[arg(long, value_enum, default_value = "table", conflicts_with = "json")]
    pub(crate) format: Format,
    /// Ask a host over the wire link instead of the kernel: `sim` for a simulated one in this process, or the path that
    /// a host process listens on
    #[arg(long, value_name = "sim|PATH", conflicts_with_all = ["format", "verbose"])]
    pub(crate) link: Option<Link>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Table,
    /// Byte for byte what the kernel's lsvmbus tool prints, also with -v and -vv
    Lsvmbus,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[arg(value_parser = SelectorParser, hide_possible_values = true, help = SELECTOR_HELP)]
    pub(crate) device: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Bind {
    #[arg(value_parser = SelectorParser, hide_possible_values = true, help = SELECTOR_HELP)]
    pub(crate) device: String,
    /// Also take the network adapter with the default route, or a disk that is in use
    #[arg(long)]
    pub(crate) force: bool,
    /// Tell uio_hv_generic the device's class, instead of telling the device its driver: the way of old kernels
    #[arg(long)]
    pub(crate) new_id: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unbind {
    #[arg(value_parser = SelectorParser, hide_possible_values = true, help = SELECTOR_HELP)]
    pub(crate) device: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Restore {
    #[arg(value_parser = SelectorParser, hide_possible_values = true, help = SELECTOR_HELP)]
    pub(crate) device: Option<String>,
    /// Every device in the journal
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Show what is in order as well
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Balloon {
    #[arg(value_parser = SelectorParser, hide_possible_values = true, help = SELECTOR_HELP, default_value = "balloon")]
    pub(crate) device: String,
    /// Never give the host so much that less than this stays available
    #[arg(long, value_name = "MIB")]
    pub(crate) floor_mib: Option<u64>,
    /// Wait this long for the device to be bound to uio_hv_generic, if it is not yet
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// Where to listen
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) listen: PathBuf,
    /// Decides everything that is left to chance; each further guest has one more
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Echo devices
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub(crate) echo: u16,
    /// The only version that the host speaks, such as 5.3; without it all
    #[arg(long, value_name = "MAJOR.MINOR", value_parser = parse_version)]
    pub(crate) protocol: Option<Version>,
    #[arg(long, value_name = "FAULT", help = fault::HELP)]
    pub(crate) fault: Vec<Fault>,
    #[arg(long, value_name = "PORT=TARGET", help = bridge::SERVICE_HELP)]
    pub(crate) service: Vec<Service>,
    #[arg(long, value_name = "LISTEN=PORT", help = bridge::PUBLISH_HELP)]
    pub(crate) publish: Vec<Published>,
}

/// One of the versions there are.
fn parse_version(text: &str) -> Result<Version, String> {
    let known = Version::ALL.into_iter().find(|version| version.to_string() == text);
    known.ok_or_else(|| format!("versions are {}", Version::ALL.map(|version| version.to_string()).join(", ")))
}

#[derive(Debug, Args)]
pub(crate) struct Storm {
    /// Offers in all
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) cycles: u64,
    /// Plays the plan of an earlier run again; without it the seed is fresh
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
    /// Devices that come and go at a time, each on a thread of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024).map(usize::from))]
    pub(crate) threads: usize,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// VM sockets to a simulated host in another process, beside Unix sockets
    ///
    /// Streams of 64 KiB and 1 KiB writes, round trips of 64 bytes (sleeping, and polling on both sides), and connections
    /// that come and go, each in turn with a Unix stream socket to the same process. Exits with 1 if a bar does not hold.
    /// With --json, `ratios` has one number for each.
    #[command(after_long_help = exit::POINTER)]
    Socket(BenchSocket),
}

#[derive(Debug, Args)]
pub(crate) struct BenchSocket {
    /// Rounds of all races; the medians count
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// Only the races with this in their name
    #[arg(long, value_name = "NAME")]
    pub(crate) race: Option<String>,
    /// Be the other process, with sockets in this folder
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub(crate) peer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Leave out what is there when it begins
    #[arg(long)]
    pub(crate) no_initial: bool,
}

const LINK_HELP: &str = "Who carries VM sockets: the kernel's AF_VSOCK, byte pipes of devices that are bound to \
uio_hv_generic, a simulated host in this process that echoes, or the host process that listens on this path";

#[derive(Debug, Args)]
pub(crate) struct Nc {
    #[arg(help = address::VM_HELP)]
    pub(crate) address: VmAddress,
    /// Listen for one connection instead of connecting
    #[arg(short, long)]
    pub(crate) listen: bool,
    /// Run this by `sh -c` with the connection as its standard input and output
    #[arg(short, long, value_name = "COMMAND", conflicts_with = "until_end")]
    pub(crate) exec: Option<String>,
    /// End as soon as the peer has ended, whether or not there is more standard input
    #[arg(long)]
    pub(crate) until_end: bool,
    /// Wait this long for the peer to take the connection, instead of half a minute
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = parse_seconds, conflicts_with = "listen")]
    pub(crate) timeout: Option<Duration>,
    /// Say on standard error who listens and who is connected
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[arg(long, value_name = "kernel|uio|sim|PATH", default_value = "kernel", help = LINK_HELP)]
    pub(crate) link: SocketLink,
}

/// A time that is some.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text.parse().map_err(|_| "write a whole number of seconds".to_owned())?;
    if seconds == 0 { Err("no time at all is too little".to_owned()) } else { Ok(Duration::from_secs(seconds.into())) }
}

/// What services take.
#[derive(Debug, Args)]
pub(crate) struct Via {
    #[arg(long, value_name = "kernel|uio|sim|PATH", default_value = "kernel", help = LINK_HELP)]
    pub(crate) link: SocketLink,
    /// Connections at a time; more wait
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096).map(usize::from))]
    pub(crate) connections: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// Where to listen
    #[arg(help = format!("Where to listen: {}", address::BRIDGE_HELP))]
    pub(crate) from: Address,
    /// Where to connect to, for each connection anew
    #[arg(help = format!("Where to connect to, for each connection anew: {}", address::BRIDGE_HELP))]
    pub(crate) to: Address,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    #[arg(help = address::VM_HELP)]
    pub(crate) address: VmAddress,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
