//! From what a scenario writes to what the host is: versions, devices, services, latencies.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use uuid::{Uuid, uuid};
use vmbus::class::Class;
use vmbus::message::{Features, OfferFlags, Version};
use vmbus_simhost::device::{DynamicMemorySettings, EchoSettings, Mute, PipeSettings};
use vmbus_simhost::{Config, DeviceSpec, Latency, Random, Refusals, ServerSettings, ViolationKind, hvsock_service};

use super::wire::{Device, HostSettings};

/// The class of devices that never say anything: private to this host.
const MUTE: Class = Class(uuid!("1d7c3b4e-98a6-4f5b-8f0a-6a2d95c7e013"));
/// Dynamic Memory versions, best first.
const MEMORY_VERSIONS: [u32; 3] = [0x2_0000, 0x1_0000, 3];
/// How often monitor pages are looked at, if nothing else is said: a machine that is emulated itself can't do it faster.
const MONITOR_LATENCY: Duration = Duration::from_millis(1);

/// What the host is like at the start.
///
/// # Errors
/// A setting makes no sense: which.
pub fn config(settings: &HostSettings) -> Result<Config> {
    let mut config = Config::seeded(settings.seed.unwrap_or(1));
    // The guest is Linux, unless somebody says what else to bear.
    config.tolerated = ViolationKind::LINUX.to_vec();
    for device in &settings.devices {
        config.devices.push(spec(device)?);
    }
    change(settings)?(&mut config);
    Ok(config)
}

/// How its server goes about it.
#[must_use]
pub fn server_settings(settings: &HostSettings) -> ServerSettings {
    let monitor_latency = settings.monitor_latency_us.map_or(MONITOR_LATENCY, Duration::from_micros);
    ServerSettings { monitor_latency, ..ServerSettings::default() }
}

/// What settings change of a host that runs.
pub(super) fn change(settings: &HostSettings) -> Result<impl FnOnce(&mut Config) + Send + use<>> {
    let versions = settings.versions.as_ref().map(|all| all.iter().map(|one| version(one)).collect());
    let versions: Option<Vec<Version>> = versions.transpose()?;
    let services = settings.services.as_ref().map(|all| all.iter().map(|one| service(one)).collect());
    let services: Option<Vec<Uuid>> = services.transpose()?;
    let tolerated = settings.tolerated.as_ref().map(|all| all.iter().map(|one| violation(one)).collect());
    let tolerated: Option<Vec<ViolationKind>> = tolerated.transpose()?;
    let refusals = settings.refusals_permille;
    ensure!(refusals.is_none_or(|of| of.iter().all(|often| *often <= 1000)), "refusals count in thousandths");
    let (latency, features, careless) = (settings.latency_us, settings.features, settings.careless);
    Ok(move |config: &mut Config| {
        versions.into_iter().for_each(|versions| config.versions = versions);
        services.into_iter().for_each(|services| config.services = services);
        tolerated.into_iter().for_each(|tolerated| config.tolerated = tolerated);
        careless.into_iter().for_each(|careless| config.careless = careless);
        features.into_iter().for_each(|features| config.features = Features::from_bits_retain(features));
        if let Some([open, gpadl, teardown, modify]) = latency.map(|all| all.map(Duration::from_micros)) {
            config.latency = Latency { open, gpadl, teardown, modify };
        }
        if let Some([open_permille, gpadl_permille]) = refusals {
            config.refusals = Refusals { open_permille, gpadl_permille };
        }
    })
}

/// A version such as `5.3`.
fn version(text: &str) -> Result<Version> {
    let parts = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = parts.with_context(|| format!("`{text}` is no version such as 5.3"))?;
    let version = Version::new(major, minor);
    ensure!(Version::ALL.contains(&version), "the host does not know version {version}");
    Ok(version)
}

/// A service's GUID, or a vsock port.
pub(super) fn service(text: &str) -> Result<Uuid> {
    if let Ok(port) = text.parse() {
        return Ok(hvsock_service(port));
    }
    text.parse().with_context(|| format!("`{text}` is neither a GUID nor a vsock port"))
}

/// A kind of violation by its name, such as `released-twice` or `ReleasedTwice`.
fn violation(text: &str) -> Result<ViolationKind> {
    let bare: String = text.chars().filter(|letter| *letter != '-').collect();
    let named = |kind: &&ViolationKind| format!("{kind:?}").eq_ignore_ascii_case(&bare);
    ViolationKind::ALL.iter().find(named).copied().with_context(|| format!("`{text}` is no kind of violation"))
}

/// A device to be offered.
pub(super) fn spec(device: &Device) -> Result<DeviceSpec> {
    let mut settings = Settings { left: device.settings.clone() };
    let mut spec = match device.kind.as_str() {
        "echo" => DeviceSpec::echo_with(
            device.number,
            EchoSettings {
                asks: settings.flag("asks"),
                interrupts_idly: settings.flag("interrupts-idly"),
                greets: settings.number("greets", 0)?,
            },
        ),
        "pipe" => {
            let packet_bytes = settings.number("packet-bytes", PipeSettings::default().packet_bytes)?;
            DeviceSpec::pipe(device.number, PipeSettings { echoes: settings.flag("echoes"), packet_bytes })
        }
        "dynamic-memory" => {
            let highest = settings.number("version", u32::MAX)?;
            DeviceSpec::dynamic_memory(DynamicMemorySettings {
                versions: MEMORY_VERSIONS.into_iter().filter(|version| *version <= highest).collect(),
                suppresses_status: settings.flag("suppresses-status"),
                max_pages: settings.left.remove("max-pages"),
            })
        }
        "buffers" => DeviceSpec::buffers(device.number),
        "mute" => DeviceSpec::new(MUTE, Random::new(device.number ^ 0x6d75_7465).guid(), || Box::new(Mute)),
        other => bail!("`{other}` is no kind of device: echo, pipe, dynamic-memory, buffers, mute"),
    };
    spec.mmio_megabytes = settings.number("mmio-megabytes", 0)?;
    spec.flags |= OfferFlags::from_bits_retain(settings.number("flags", 0)?);
    spec.monitored = device.monitored;
    let guid = |text: &String| text.parse::<Uuid>().with_context(|| format!("`{text}` is no GUID"));
    if let Some(class) = &device.class {
        spec.class = Class(guid(class)?);
    }
    if let Some(instance) = &device.instance {
        spec.instance = guid(instance)?;
    }
    if let Some(name) = settings.left.keys().next() {
        bail!("a device of kind {} has no setting `{name}`", device.kind);
    }
    Ok(spec)
}

/// Settings of a device that nobody has asked for yet.
struct Settings {
    left: BTreeMap<String, u64>,
}

impl Settings {
    fn flag(&mut self, name: &str) -> bool {
        self.left.remove(name).is_some_and(|value| value != 0)
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str, otherwise: T) -> Result<T> {
        let Some(value) = self.left.remove(name) else { return Ok(otherwise) };
        T::try_from(value).ok().with_context(|| format!("{value} is too much for `{name}`"))
    }
}
