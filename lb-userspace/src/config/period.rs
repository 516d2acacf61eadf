//! Spans of time as people write them, and which of them make sense.
use std::{fmt, str::FromStr, time::Duration};

use lb_common::config::Timeouts;

/// The longest span of any setting.
const LONGEST: Duration = Duration::from_secs(Timeouts::LONGEST as u64);

/// A span of time as people write it: `250ms`, `30s`, `5m`, `1h`; always with its unit. Having one guarantees that it is
/// at least `LEAST` milliseconds and at most [`Timeouts::LONGEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period<const LEAST: u64>(Duration);

impl<const LEAST: u64> Period<LEAST> {
    /// The span.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl<const LEAST: u64> FromStr for Period<LEAST> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let least = Duration::from_millis(LEAST);
        within(text, least, parse(text)?).map(Self)
    }
}

/// When a silent flow is forgotten, in whole seconds; zero leaves it at the default, as kube-proxy's zero leaves the
/// kernel's setting as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(u32);

impl Timeout {
    /// Its seconds, or the default's.
    pub const fn seconds_or(self, default: u32) -> u32 {
        if self.0 == 0 { default } else { self.0 }
    }
}

impl FromStr for Timeout {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // Go's durations, and so kube-proxy's, may leave out the unit of zero.
        let span = if text == "0" {
            Duration::ZERO
        } else {
            parse(text)?
        };
        if span.is_zero() {
            return Ok(Self(0));
        }
        let span = within(text, Duration::from_secs(1), span)
            .map_err(|refusal| format!("{refusal}, or 0s for the default"))?;
        u32::try_from(span.as_millis().div_ceil(1000))
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor));
    milliseconds.map(Duration::from_millis).ok_or_else(|| {
        format!("`{text}` is no time: write a whole number and ms, s, m or h, as in 30s")
    })
}

fn within(text: &str, least: Duration, span: Duration) -> Result<Duration, String> {
    if span < least || span > LONGEST {
        return Err(format!(
            "`{text}` is too {}: write {} to {}",
            if span < least { "short" } else { "long" },
            Shown(least),
            Shown(LONGEST)
        ));
    }
    Ok(span)
}

/// A span in the way it is read.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else {
            write!(f, "{}ms", self.0.as_millis())
        }
    }
}

impl<const LEAST: u64> fmt::Display for Period<LEAST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(self.0).fmt(f)
    }
}
impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// What is read and written as its text.
macro_rules! as_text {
    ($([$($generics:tt)*] $type:ty),*) => { $(
        impl<$($generics)*> serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de, $($generics)*> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    )* };
}
pub(super) use as_text;

as_text!([const LEAST: u64] Period<LEAST>, [] Timeout);
