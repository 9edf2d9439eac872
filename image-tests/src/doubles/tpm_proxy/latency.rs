//! An SLB 9670's time for each command.
//!
//! Source: docs/findings/slb9670.md, "Latencies". *Measured* values are means of 100 or 1,000 runs on real chips
//! (crocs-muni/tpmscan-dataset, `Perf_*.csv`; sessions: Sassu and Bottomley on LKML, September
//! 2024, firmware unknown). The others are that page's *estimates*, and marked as such. All
//! include the kernel's polling, 1 to 4 ms a command.
//!
//! Not modelled: the variation of anything but RSA key generation (a few per cent), commands with more or less data
//! than the measured ones, the pool's refilling while the chip is idle.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fastrand::Rng;

use super::codes;
use super::slb9670::{ALG_ECC, ALG_RSA, Firmware, public_type};
use super::upstream::Upstream;
use super::wire::Command;

/// RSA-2048 key generation in seconds, fitted to 7,000 runs on firmware 7.85: quantiles within
/// 0.3 s up to p99. Mean 10.6 s, p99 32 s. On 7.63 the quantiles lie within 1.4 s of it.
const RSA_SHIFT: f64 = 1.3;
const RSA_SHAPE: f64 = 1.97;
const RSA_SCALE: f64 = 4.70;
/// A key from the pool, ms: 80 to 115 measured.
const RSA_POOLED: f64 = 100.0;
/// What each HMAC or encryption session adds, ms: PCR_Extend takes 24 in a session and 6.4 without.
const PER_SESSION: f64 = 18.0;
/// What each object adds that the kernel's resource manager swaps for a command, ms: ContextLoad 37 and FlushContext
/// 3.2 measured, ContextSave estimated.
const PER_OBJECT: f64 = 37.0 + 3.2 + 10.0;
/// What CreateLoaded adds to Create, ms: an estimate.
const LOADING: f64 = 20.0;
/// Any command without a row, and any that fails, ms: estimated to be like GetRandom.
const OTHER: f64 = 5.0;

/// The latency table and its random state.
#[derive(Clone, Debug)]
pub struct Latency {
    firmware: Firmware,
    scale: f64,
    pooled: u32,
    chip: u64,
    draws: Rng,
}

impl Latency {
    /// `seed` stands for one chip: its primary keys take the same time again and again. Without `slowed_by`, time is
    /// added up but not spent.
    pub fn new(firmware: Firmware, seed: u64) -> Self {
        Self {
            firmware,
            scale: 0.0,
            pooled: 0,
            chip: seed,
            draws: Rng::with_seed(seed),
        }
    }

    /// Makes commands take `scale` times the chip's time.
    pub fn slowed_by(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// A chip that has been idle long enough to have `keys` RSA keys in its pool: seven in one measurement, none in any
    /// run of 2023.
    pub fn with_pool(self, keys: u32) -> Self {
        Self {
            pooled: keys,
            ..self
        }
    }

    /// The command's time on the chip, with `swapped` objects loaded before and saved after it.
    pub(super) fn of(
        &mut self,
        command: &Command,
        succeeded: bool,
        swapped: usize,
        tpm: &Upstream,
    ) -> Duration {
        let bare = if succeeded {
            self.work(command, tpm)
        } else {
            OTHER
        };
        let sessions = PER_SESSION * command.keyed_sessions as f64;
        let swapping = PER_OBJECT * swapped as f64;
        Duration::from_secs_f64((bare + sessions + swapping) / 1000.0)
    }

    /// How much of `chip_time` the caller has to wait.
    pub(super) fn wait(&self, chip_time: Duration) -> Duration {
        chip_time.mul_f64(self.scale)
    }

    fn work(&mut self, command: &Command, tpm: &Upstream) -> f64 {
        let kind = match command.code {
            codes::CREATE | codes::CREATE_LOADED | codes::CREATE_PRIMARY | codes::LOAD => {
                public_type(command)
            }
            codes::SIGN | codes::VERIFY_SIGNATURE | codes::START_AUTH_SESSION => command
                .handles
                .first()
                .and_then(|&handle| tpm.object_type(handle)),
            _ => None,
        };
        match (command.code, kind) {
            (codes::CREATE, Some(ALG_RSA)) => self.rsa_key(),
            (codes::CREATE_LOADED, Some(ALG_RSA)) => self.rsa_key() + LOADING,
            (codes::CREATE_LOADED, kind) => self.row(codes::CREATE, kind) + LOADING,
            (codes::CREATE_PRIMARY, Some(ALG_RSA)) => self.rsa_primary(command),
            (code, kind) => self.row(code, kind),
        }
    }

    fn row(&self, code: u32, kind: Option<u16>) -> f64 {
        let fits = |row: &&Row| row.0 == code && (row.1.is_none() || row.1 == kind);
        let row = TABLE.iter().find(fits);
        row.map_or(OTHER, |row| match self.firmware {
            Firmware::V7_63 => row.2,
            Firmware::V7_85 => row.3,
        })
    }

    fn rsa_key(&mut self) -> f64 {
        if self.pooled > 0 {
            self.pooled -= 1;
            return RSA_POOLED;
        }
        rsa_draw(&mut self.draws)
    }

    /// Derived from the chip's seed and the template: the same time again and again, and never from the pool.
    fn rsa_primary(&self, command: &Command) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.chip, command.parameters.0).hash(&mut hasher);
        rsa_draw(&mut Rng::with_seed(hasher.finish()))
    }
}

/// The time for one key, ms.
fn rsa_draw(draws: &mut Rng) -> f64 {
    1000.0 * (RSA_SHIFT + RSA_SCALE * gamma(draws, RSA_SHAPE))
}

/// Gamma distributed with `shape` >= 1 and scale 1 (Marsaglia and Tsang, "A simple method for generating gamma
/// variables", 2000).
fn gamma(draws: &mut Rng, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(draws);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(draws).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Standard normal (Box and Muller).
fn normal(draws: &mut Rng) -> f64 {
    let radius = (-2.0 * unit(draws).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(draws)).cos()
}

/// Uniform in (0, 1], so that its logarithm exists.
fn unit(draws: &mut Rng) -> f64 {
    1.0 - draws.f64()
}

/// Command; type of key, if it matters; milliseconds on 7.63 and on 7.85.
type Row = (u32, Option<u16>, f64, f64);

/// The first matching row counts.
const TABLE: &[Row] = &[
    // measured
    (codes::CREATE, Some(ALG_ECC), 108.0, 218.0),
    (codes::CREATE, None, 55.0, 56.0),
    (codes::SIGN, Some(ALG_RSA), 164.0, 188.0),
    (codes::SIGN, Some(ALG_ECC), 70.0, 71.0),
    (codes::RSA_DECRYPT, None, 164.0, 189.0),
    (codes::VERIFY_SIGNATURE, Some(ALG_RSA), 11.0, 10.5),
    (codes::VERIFY_SIGNATURE, Some(ALG_ECC), 106.0, 106.0),
    (codes::HMAC, None, 14.0, 14.0),
    (codes::HASH, None, 5.0, 5.0),
    (codes::GET_RANDOM, None, 3.9, 4.2),
    // measured, firmware unknown
    (codes::PCR_EXTEND, None, 6.4, 6.4),
    (codes::START_AUTH_SESSION, Some(ALG_ECC), 85.0, 85.0),
    (codes::CONTEXT_LOAD, None, 37.0, 37.0),
    (codes::FLUSH_CONTEXT, None, 3.2, 3.2),
    // estimated
    (codes::CREATE_PRIMARY, Some(ALG_ECC), 100.0, 200.0),
    (codes::START_AUTH_SESSION, Some(ALG_RSA), 200.0, 200.0),
    (codes::START_AUTH_SESSION, None, 8.0, 8.0),
    (codes::LOAD, Some(ALG_RSA), 50.0, 50.0),
    (codes::LOAD, None, 40.0, 40.0),
    (codes::UNSEAL, None, 25.0, 25.0),
    (codes::READ_PUBLIC, None, 8.0, 8.0),
    (codes::TEST_PARMS, None, 4.0, 4.0),
    (codes::NV_READ_PUBLIC, None, 6.0, 6.0),
    (codes::NV_READ, None, 12.0, 12.0),
    (codes::NV_WRITE, None, 40.0, 40.0),
    (codes::NV_DEFINE_SPACE, None, 30.0, 30.0),
    (codes::EVICT_CONTROL, None, 60.0, 60.0),
    (codes::SELF_TEST, None, 500.0, 500.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsa_key_generation_has_the_measured_distribution() {
        let mut draws = Rng::with_seed(1);
        let mut seconds: Vec<f64> = (0..20_000).map(|_| rsa_draw(&mut draws) / 1000.0).collect();
        seconds.sort_by(f64::total_cmp);
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        assert!((mean - 10.56).abs() < 0.2, "mean {mean}");
        // docs/findings/slb9670.md, "Latencies", firmware 7.85
        for (quantile, measured) in [(0.5, 9.036), (0.9, 19.274), (0.99, 32.285)] {
            let drawn = seconds[(quantile * seconds.len() as f64) as usize];
            assert!(
                (drawn - measured).abs() < 0.8,
                "p{quantile}: {drawn} for {measured}"
            );
        }
    }

    #[test]
    fn the_pool_serves_seven_keys() {
        let mut latency = Latency::new(Firmware::V7_85, 3).with_pool(7);
        let quick = (0..8).filter(|_| latency.rsa_key() == RSA_POOLED).count();
        assert_eq!(quick, 7);
    }
}
