//! What a load has come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Ends, Timer};
use crate::doubles::iot_core::{Certificate, Counts, Event, Status, Who};
use crate::faults::network::Cloud;

/// The results.
#[derive(Debug)]
pub struct Figures {
    pub devices: usize,
    /// From the beginning until the last device has finished.
    pub took: Duration,
    pub counts: Counts,
    /// For each device that failed, why.
    pub failed: Vec<String>,
    /// The things that the devices are configured as.
    pub things: BTreeSet<String>,
    /// The certificates in service, by their IDs.
    pub in_service: BTreeSet<String>,
    /// Those that AWS IoT Core would accept.
    pub active: BTreeSet<String>,
    /// The moments of all connections, since the beginning, ascending.
    pub arrivals: Vec<Duration>,
    /// The same, if the timer's own time passed before each look. Empty if no timer has a part in it.
    pub arrivals_by_timer: Vec<Duration>,
    /// Connections that are still open.
    pub open: usize,
    /// Times from CONNECT to the end of the connection, ascending.
    pub conversations: Vec<Duration>,
    /// A firstboot's processor time, on average.
    pub processor_time: Duration,
    /// The largest firstboot's peak resident memory, KiB.
    pub memory: u64,
    /// The broker's peak resident memory so far, KiB.
    pub broker_memory: u64,
    /// The first moment of each connection of a thing, of those that show a device's certificate.
    connected: Vec<(String, Instant)>,
}

impl Figures {
    /// What AWS IoT Core has seen since the last time, once no connection is open.
    pub fn take(cloud: &Cloud, devices: usize, took: Duration) -> Result<Self> {
        let ended = Instant::now();
        let events = cloud.core.take_events()?;
        let begin = ended.checked_sub(took).unwrap_or(ended);
        let mut conversations = Vec::new();
        let (mut arrivals, mut connected) = (Vec::new(), Vec::new());
        for (index, entry) in events.0.iter().enumerate() {
            if entry.event != Event::Connected {
                continue;
            }
            arrivals.push(entry.at.saturating_duration_since(begin));
            if let Who::Device { thing, .. } = &entry.who {
                connected.push((thing.clone(), entry.at));
            }
            let mut later = events.0[index..].iter();
            let end =
                later.find(|end| end.client == entry.client && end.event == Event::Disconnected);
            conversations.extend(end.map(|end| end.at - entry.at));
        }
        arrivals.sort();
        conversations.sort();
        let registry = cloud.core.registry();
        let is_active = |c: &&Certificate| c.status == Status::Active;
        Ok(Self {
            devices,
            took,
            counts: registry.counts(),
            failed: Vec::new(),
            things: BTreeSet::new(),
            in_service: BTreeSet::new(),
            active: registry
                .certificates()
                .filter(is_active)
                .map(|c| c.id.clone())
                .collect(),
            arrivals,
            arrivals_by_timer: Vec::new(),
            open: events.open(),
            conversations,
            processor_time: Duration::ZERO,
            memory: 0,
            broker_memory: cloud.core.memory_peak()?,
            connected,
        })
    }

    /// Adds how the devices have ended, which this timer has started.
    pub(super) fn of(mut self, ends: Ends, timer: Option<&Timer>) -> Self {
        let mut begins = BTreeMap::new();
        let mut spent = Duration::ZERO;
        for end in ends {
            match end {
                Ok(done) => {
                    spent += done.usage.processor;
                    self.memory = self.memory.max(done.usage.peak);
                    begins.insert(done.thing.clone(), (done.started, done.by_timer));
                    self.in_service.insert(done.certificate_id);
                    self.things.insert(done.thing);
                }
                Err(e) => self.failed.push(format!("{e:#}")),
            }
        }
        self.processor_time = spent / self.devices.max(1) as u32;
        if timer.is_some() {
            let moved = self.connected.iter().filter_map(|(thing, at)| {
                let (started, by_timer) = begins.get(thing)?;
                Some(at.saturating_duration_since(*started) + *by_timer)
            });
            self.arrivals_by_timer = moved.collect();
            self.arrivals_by_timer.sort();
        }
        self
    }
}

/// The most of these ascending moments within any one second.
pub fn peak_a_second(moments: &[Duration]) -> usize {
    let within = |(n, from): (usize, &Duration)| {
        moments[n..].partition_point(|at| *at - *from < Duration::from_secs(1))
    };
    moments
        .iter()
        .enumerate()
        .map(within)
        .max()
        .unwrap_or_default()
}

/// Connections in a second that are no herd yet: a thousand devices with two each, at any second of the timer's hour, make
/// eight or so at most.
const NO_HERD: usize = 20;

/// Checks that every device has enrolled, and then renewed: with a thing of its own, and exactly one certificate more each
/// time, which is in service; and that renewals are no herd in the timer's own time.
pub fn check([enrolled, renewed]: &[Figures; 2]) -> Result<()> {
    let n = enrolled.devices;
    for (figures, times) in [(enrolled, 1), (renewed, 2)] {
        ensure!(
            figures.failed.is_empty(),
            "{} failed: {}",
            figures.failed.len(),
            figures.failed[0]
        );
        ensure!(
            figures.things.len() == n,
            "{} things are configured",
            figures.things.len()
        );
        let counts = figures.counts;
        ensure!(
            (counts.created, counts.active, counts.things) == (times * n, times * n, n),
            "{n} devices, {times}: {counts:?}"
        );
        ensure!(counts.register_calls == times * n, "{counts:?}");
        ensure!(
            figures.open == 0,
            "{} connections were left open",
            figures.open
        );
        ensure!(
            figures.in_service.len() == n && figures.in_service.is_subset(&figures.active),
            "some certificates in service are not active"
        );
    }
    ensure!(
        enrolled.in_service.is_disjoint(&renewed.in_service),
        "some certificates were not renewed"
    );
    let peak = peak_a_second(&renewed.arrivals_by_timer);
    ensure!(peak <= NO_HERD, "{peak} arrivals in a second");
    Ok(())
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.conversations.get(self.conversations.len() / 2);
        let longest = self.conversations.last();
        writeln!(f, "devices                         {}", self.devices)?;
        writeln!(f, "until the last one's end        {:.1?}", self.took)?;
        writeln!(f, "connections                     {}", self.arrivals.len())?;
        writeln!(
            f,
            "arrivals in a second, at most   {}",
            peak_a_second(&self.arrivals)
        )?;
        if !self.arrivals_by_timer.is_empty() {
            let peak = peak_a_second(&self.arrivals_by_timer);
            writeln!(f, "… in the timer's own time       {peak}")?;
        }
        writeln!(
            f,
            "conversation, median            {:.0?}",
            median.copied().unwrap_or_default()
        )?;
        writeln!(
            f,
            "conversation, longest           {:.0?}",
            longest.copied().unwrap_or_default()
        )?;
        writeln!(
            f,
            "processor time of a firstboot   {:.0?}",
            self.processor_time
        )?;
        writeln!(f, "memory of a firstboot, at most  {} KiB", self.memory)?;
        write!(
            f,
            "memory of the broker, at most   {} KiB",
            self.broker_memory
        )
    }
}
