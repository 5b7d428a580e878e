//! Middle and spread of a few repetitions, and shares of many durations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Some figures of one kind: as many as there were repetitions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// The middle one; of an even number the mean of the two.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
            _ => sorted[half],
        }
    }

    /// The least.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The most.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// Each by the one of the same repetition.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

impl FromIterator<f64> for Figures {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// What shares of durations did not exceed, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half.
    pub p50_ms: f64,
    /// Nine of ten.
    pub p90_ms: f64,
    /// 99 of a hundred.
    pub p99_ms: f64,
    /// All.
    pub max_ms: f64,
}

impl Latency {
    /// Of these.
    #[must_use]
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort();
        let at = |percent: usize| {
            let last = durations.len().saturating_sub(1);
            // Rounded up: a share that is not reached is not counted as reached.
            durations.get((last * percent).div_ceil(100)).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e3)
        };
        Self { p50_ms: at(50), p90_ms: at(90), p99_ms: at(99), max_ms: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_three_and_of_four() {
        assert_eq!(Figures(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Figures(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Figures::default().median().is_nan());
    }

    #[test]
    fn ratios_are_of_pairs() {
        let ratios = Figures(vec![1.0, 2.0]).over(&Figures(vec![2.0, 2.0]));
        assert_eq!(ratios.0, [0.5, 1.0]);
    }

    #[test]
    fn shares_of_a_hundred_durations() {
        let latency = Latency::of((0..=100).map(Duration::from_millis).collect());
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.max_ms), (50.0, 99.0, 100.0));
    }
}
