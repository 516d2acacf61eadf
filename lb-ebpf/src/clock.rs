//! Time and chance are inputs.

/// The low 32 bits of jiffies: differences are meaningful (modulo 2^32), values are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jiffies(pub u32);

impl Jiffies {
    /// Jiffies since `earlier`.
    #[inline(always)]
    pub const fn since(self, earlier: u32) -> u32 {
        self.0.wrapping_sub(earlier)
    }
}

/// What the datapath takes from the machine besides tables.
pub trait Clock {
    /// The time.
    fn now(&self) -> Jiffies;
    /// 32 random bits; asked for new flows only.
    fn random(&mut self) -> u32;
}
