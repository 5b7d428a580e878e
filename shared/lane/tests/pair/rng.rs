//! A seeded source of numbers, so that a seed is a whole history.

/// SplitMix64: small, quick, and the same on every machine and in every release.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// The same for a span that covers several orders of magnitude: each of them as often as the others.
    pub fn spread(&mut self, least: u64, most: u64) -> u64 {
        let (low, high) = (64 - least.max(1).leading_zeros(), 64 - most.max(1).leading_zeros());
        let bits = self.between(low.into(), high.into());
        self.between(least.max(1 << (bits - 1)).min(most), most.min((1 << bits) - 1).max(least))
    }

    /// True so often in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::try_from(self.next() % among.len() as u64).unwrap_or(0)]
    }
}
