//! The types a variable's value can have. An error of theirs completes the sentence that begins with the value:
//! `"abc" is not a size in bytes`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Any type's fault as the rest of a sentence that begins with the value. The standard library's and other crates'
/// faults ("invalid digit found in string") don't read as one by themselves.
pub(super) fn as_predicate(fault: &str) -> String {
    match fault {
        _ if fault.starts_with("is ") || fault.starts_with("has ") => fault.to_owned(),
        _ if fault.starts_with("not ") => format!("is {fault}"),
        _ => format!("is not usable: {fault}"),
    }
}

/// What a value was expected to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not {0}")]
pub struct NotA(pub &'static str);

/// A size: `1048576`, `64KiB`, `1MiB`, `4GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The number of bytes; more than the address space counts as all of it.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Bytes {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        const WANTED: NotA = NotA("a size in bytes");
        let (digits, unit) = number_and_unit(text).ok_or(WANTED)?;
        let factor: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            // KB and MB are refused rather than guessed: half the world means 1000, the other 1024.
            _ => return Err(WANTED),
        };
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Self).ok_or(WANTED)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// The longest [`Span`]: any is added to the present moment somewhere, and with a huge one that overflows.
const SPAN_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A length of time of at most 365 days: `200ms`, `5s`, `10m`, `1h`; a plain number is seconds, as in the existing batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// The duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let text = text.trim();
        let seconds = text.parse().map(Duration::from_secs);
        let span = seconds.or_else(|_| humantime::parse_duration(text)).map_err(|_| NotA("a length of time"))?;
        if span > SPAN_MAX {
            return Err(NotA("a length of time of at most 365 days"));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A whole number above zero: limits of zero would refuse everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u32);

impl Count {
    /// The number.
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl FromStr for Count {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim().parse() {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(NotA("a whole number above zero")),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `yes` or `no` (also true/false, 1/0, on/off).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

impl Switch {
    /// Is it on?
    pub fn is_on(self) -> bool {
        self.0
    }
}

impl FromStr for Switch {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim().to_ascii_lowercase().as_str() {
            "yes" | "true" | "1" | "on" => Ok(Self(true)),
            "no" | "false" | "0" | "off" => Ok(Self(false)),
            _ => Err(NotA("yes or no")),
        }
    }
}

/// Comma-separated entries; spaces around them and empty entries don't count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> List<T> {
    /// The entries, in the order given.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

/// An entry of a [`List`] that isn't right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Nothing between the commas.
    #[error("is an empty list")]
    Empty,
    /// One entry, and its own fault.
    #[error("has a wrong entry: {entry:?} {fault}")]
    Entry {
        /// The entry as given.
        entry: String,
        /// What its type says.
        fault: String,
    },
}

impl<T> FromStr for List<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    type Err = ListError;
    fn from_str(text: &str) -> Result<Self, ListError> {
        let entries: Vec<&str> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        if entries.is_empty() {
            return Err(ListError::Empty);
        }
        let parse = |entry: &str| {
            entry.parse().map_err(|fault: T::Err| ListError::Entry {
                entry: entry.to_owned(),
                fault: as_predicate(&fault.to_string()),
            })
        };
        entries.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// A value that no log, error or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself: for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        // Most secrets travel in an HTTP header, where a control character ends the connection.
        if text.chars().any(char::is_control) {
            return Err(NotA("free of control characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Splits `64KiB` into `64` and `KiB`.
fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_unambiguous() {
        let size = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("4 GiB"), Ok(4 << 30));
        for wrong in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        assert_eq!(Bytes(1 << 20).to_string(), "1MiB");
        assert_eq!(Bytes(1500).to_string(), "1500");
        assert_eq!(Bytes(0).to_string(), "0");
    }

    #[test]
    fn a_plain_number_is_seconds() {
        assert_eq!("3".parse::<Span>().unwrap().get(), Duration::from_secs(3));
        assert_eq!("200ms".parse::<Span>().unwrap().get(), Duration::from_millis(200));
        assert_eq!("10m".parse::<Span>().unwrap().get(), Duration::from_secs(600));
        assert!("soon".parse::<Span>().is_err());
    }

    #[test]
    fn a_span_is_a_year_at_most() {
        assert!("365days".parse::<Span>().is_ok() && "31536000".parse::<Span>().is_ok());
        for too_long in ["31536001", "366days", "18446744073709551615"] {
            assert_eq!(too_long.parse::<Span>(), Err(NotA("a length of time of at most 365 days")), "{too_long}");
        }
    }

    #[test]
    fn a_list_names_its_wrong_entry() {
        assert_eq!("a, b,".parse::<List<String>>().unwrap().as_slice(), ["a", "b"]);
        let error = "1,x".parse::<List<Count>>().unwrap_err();
        assert_eq!(error.to_string(), "has a wrong entry: \"x\" is not a whole number above zero");
        assert_eq!(" , ".parse::<List<String>>(), Err(ListError::Empty));
    }

    #[test]
    fn a_secret_shows_nothing() {
        let secret: Secret = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "***");
        assert!("a\nb".parse::<Secret>().is_err());
    }

    #[test]
    fn a_switch_takes_the_usual_words() {
        assert!("Yes".parse::<Switch>().unwrap().is_on());
        assert!(!"0".parse::<Switch>().unwrap().is_on());
        assert!("perhaps".parse::<Switch>().is_err());
    }
}
