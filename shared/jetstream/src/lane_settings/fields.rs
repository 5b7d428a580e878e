//! What can be set of a lane, and what each value may be.
//!
//! An entry is a JSON object; each field is optional, an unknown one is an error: a misspelt setting that does nothing is
//! worse than one that is refused. Every fault of an entry is found at once, each with its field and the reason in words.

use std::fmt;
use std::ops::RangeInclusive;

use fedstream_lane::{Profile, Seq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Longest address that is accepted, bytes: what proxies commonly take.
const URL_BYTES_MAX: usize = 2_048;

/// Settings of one lane, or of all lanes that have none of their own. A field that is not set leaves it to the
/// `default` entry, and that one to the service's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneSettings {
    /// Most activities in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_items: Option<u32>,
    /// Most bytes of activities in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<u64>,
    /// How long a batch waits to become full while another is in flight, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linger_ms: Option<u64>,
    /// Batches in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_batches: Option<u32>,
    /// Activities in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_items: Option<u32>,
    /// Bytes in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_bytes: Option<u64>,
    /// Most activities a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<u32>,
    /// How long the destination accepts a signature, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_window_s: Option<u64>,
    /// How the instance's answers are read.
    #[serde(skip_serializing_if = "Option::is_none", with = "profile")]
    pub profile: Option<Profile>,
    /// Nothing is posted, and the front door refuses new activities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Park the lane's head, if it is this sequence. Only of one lane.
    #[serde(skip_serializing_if = "Option::is_none", with = "sequence")]
    pub park: Option<Seq>,
    /// Where its batches go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_url: Option<String>,
    /// Where they went before, until the change is done: its gate is closed first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_url_before: Option<String>,
    /// Don't wait for the gate at the old address; repeats are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_url_forced: Option<bool>,
    /// Messages that the reader asks the broker for at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<u16>,
    /// How long such a request waits at the broker, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_expires_s: Option<u64>,
}

/// The names, for the error that a misspelt one gets.
const NAMES: [&str; 16] = [
    "batch_items",
    "batch_bytes",
    "linger_ms",
    "window_batches",
    "window_items",
    "window_bytes",
    "rate_per_s",
    "signature_window_s",
    "profile",
    "paused",
    "park",
    "batch_url",
    "batch_url_before",
    "batch_url_forced",
    "max_batch",
    "max_expires_s",
];

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The field; of a whole entry that can't be read, `entry`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Every fault of an entry; at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl LaneSettings {
    /// Reads an entry and checks it.
    ///
    /// # Errors
    /// Every fault, by field.
    pub fn read(json: &[u8]) -> Result<Self, Faults> {
        let whole = |reason: String| Faults(vec![Fault { field: "entry".to_owned(), reason }]);
        let value: Value = serde_json::from_slice(json).map_err(|error| whole(format!("not JSON: {error}")))?;
        let Value::Object(given) = value else {
            return Err(whole("not a JSON object".to_owned()));
        };
        let mut faults = Vec::new();
        let mut readable = Map::new();
        for (name, value) in given {
            // One by one: the parser would stop at the first fault, and name no field.
            let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
            match serde_json::from_value::<Self>(alone) {
                Ok(_) => drop(readable.insert(name, value)),
                Err(_) if !NAMES.contains(&name.as_str()) => {
                    let field: String = name.chars().take(64).collect();
                    faults.push(Fault { field, reason: format!("no such setting; there are {}", NAMES.join(", ")) });
                }
                Err(error) => faults.push(Fault { field: name, reason: error.to_string() }),
            }
        }
        let settings: Self =
            serde_json::from_value(Value::Object(readable)).map_err(|error| whole(error.to_string()))?;
        faults.extend(settings.faults());
        if faults.is_empty() { Ok(settings) } else { Err(Faults(faults)) }
    }

    /// The entry's JSON.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // numbers, strings and flags always serialise
    }

    /// Refuses values that no lane could run on.
    ///
    /// # Errors
    /// Every fault, by field.
    pub fn check(&self) -> Result<(), Faults> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }

    /// These settings where they say something, else those of `default`.
    #[must_use]
    pub fn over(&self, default: &Self) -> Self {
        Self {
            batch_items: self.batch_items.or(default.batch_items),
            batch_bytes: self.batch_bytes.or(default.batch_bytes),
            linger_ms: self.linger_ms.or(default.linger_ms),
            window_batches: self.window_batches.or(default.window_batches),
            window_items: self.window_items.or(default.window_items),
            window_bytes: self.window_bytes.or(default.window_bytes),
            rate_per_s: self.rate_per_s.or(default.rate_per_s),
            signature_window_s: self.signature_window_s.or(default.signature_window_s),
            profile: self.profile.or(default.profile),
            paused: self.paused.or(default.paused),
            park: self.park, // a sequence is one lane's
            batch_url: self.batch_url.clone().or_else(|| default.batch_url.clone()),
            batch_url_before: self.batch_url_before.clone(), // each lane closes its own
            batch_url_forced: self.batch_url_forced.or(default.batch_url_forced),
            max_batch: self.max_batch.or(default.max_batch),
            max_expires_s: self.max_expires_s.or(default.max_expires_s),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let whole = |value: Option<u32>| value.map(u64::from);
        let ranges: [(&str, Option<u64>, RangeInclusive<u64>, &str); 11] = [
            ("batch_items", whole(self.batch_items), 1..=1_000, "a receiver takes 1,000 (its FED_BATCH_ITEMS_MAX)"),
            ("batch_bytes", self.batch_bytes, 1_024..=64 << 20, "1 KiB to 64 MiB: both ends hold a batch in memory"),
            ("linger_ms", self.linger_ms, 0..=10_000, "a batch that waits longer delays the lane for nothing"),
            ("window_batches", whole(self.window_batches), 1..=64, "the receiver holds those that wait"),
            (
                "window_items",
                whole(self.window_items),
                1..=2_000,
                "a receiver remembers 4,096 outcomes (its FED_MEMORY_ITEMS)",
            ),
            ("window_bytes", self.window_bytes, 1_024..=1 << 30, "1 KiB to 1 GiB: all of it is held in memory"),
            ("rate_per_s", whole(self.rate_per_s), 1..=1_000_000, "to stop a lane there is paused"),
            ("signature_window_s", self.signature_window_s, 60..=86_400, "1 min to 24 h"),
            ("park", self.park.map(|seq| seq.0), 1..=u64::MAX, "sequences begin at 1"),
            ("max_batch", self.max_batch.map(u64::from), 1..=500, "the reader holds as many in memory"),
            ("max_expires_s", self.max_expires_s, 1..=60, "a lost consumer shows after two halves of it"),
        ];
        let out_of_range = ranges.into_iter().filter_map(|(field, value, range, why)| {
            let value = value.filter(|value| !range.contains(value))?;
            let reason = format!("is {value}, must be {} to {} ({why})", range.start(), range.end());
            Some(Fault { field: field.to_owned(), reason })
        });
        let addresses = [("batch_url", &self.batch_url), ("batch_url_before", &self.batch_url_before)];
        let bad_addresses = addresses.into_iter().filter_map(|(field, url)| {
            let reason = bad_url(url.as_deref()?)?;
            Some(Fault { field: field.to_owned(), reason })
        });
        let pairs = [
            ("batch_items", whole(self.batch_items), "window_items", whole(self.window_items)),
            ("batch_bytes", self.batch_bytes, "window_bytes", self.window_bytes),
        ];
        let too_small = pairs.into_iter().filter_map(|(batch, one, window, all)| {
            let reason = format!("is {}, less than {batch} ({}): no full batch would fit", all?, one?);
            (one? > all?).then(|| Fault { field: window.to_owned(), reason })
        });
        out_of_range.chain(bad_addresses).chain(too_small).collect()
    }
}

/// What is wrong with an address; never the address itself, which may have a credential in it.
fn bad_url(text: &str) -> Option<String> {
    if text.len() > URL_BYTES_MAX {
        return Some(format!("is longer than {URL_BYTES_MAX} bytes"));
    }
    let Ok(url) = reqwest::Url::parse(text) else {
        return Some("is no address, for example https://batch.example/batch".to_owned());
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Some(format!("is an address with {}:, must be http: or https:", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Some("names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("has a credential in it; that is the service's to know (HTTP_BATCH_AUTHORIZATION)".to_owned());
    }
    url.fragment().map(|_| "has a fragment (#..), which is never sent".to_owned())
}

/// A profile by its word.
mod profile {
    use super::{Deserialize, Deserializer, Profile, Serializer};
    use serde::de::Error;

    pub fn serialize<S: Serializer>(profile: &Option<Profile>, to: S) -> Result<S::Ok, S::Error> {
        match profile {
            Some(profile) => to.serialize_str(profile.as_str()),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Profile>, D::Error> {
        let Some(word) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        word.parse().map(Some).map_err(|_| D::Error::custom("must be generic, lemmy or mastodon"))
    }
}

/// A sequence as its number.
mod sequence {
    use super::{Deserialize, Deserializer, Seq, Serializer};

    pub fn serialize<S: Serializer>(seq: &Option<Seq>, to: S) -> Result<S::Ok, S::Error> {
        match seq {
            Some(seq) => to.serialize_u64(seq.0),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Seq>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Vec<(String, String)> {
        let faults = LaneSettings::read(json.as_bytes()).expect_err(json).0;
        faults.into_iter().map(|fault| (fault.field, fault.reason)).collect()
    }

    #[test]
    fn every_setting_reads_back_as_it_was_written() {
        let json = r#"{"batch_items":100,"batch_bytes":1048576,"linger_ms":20,"window_batches":4,"window_items":400,
            "window_bytes":4194304,"rate_per_s":50,"signature_window_s":3300,"profile":"lemmy","paused":true,"park":17,
            "batch_url":"https://batch.example/batch","batch_url_before":"http://[::1]:8080/b?x=1",
            "batch_url_forced":false,"max_batch":64,"max_expires_s":4}"#;
        let settings = LaneSettings::read(json.as_bytes()).expect("all fine");
        assert_eq!(LaneSettings::read(&settings.write()), Ok(settings.clone()));
        let written: Map<String, Value> = serde_json::from_slice(&settings.write()).expect("an object");
        assert_eq!(
            written.keys().collect::<std::collections::BTreeSet<_>>(),
            NAMES.map(str::to_owned).iter().collect()
        );
        assert_eq!(LaneSettings::read(b"{}"), Ok(LaneSettings::default()));
        assert_eq!(LaneSettings::default().write(), b"{}");
    }

    #[test]
    fn each_fault_names_its_field_and_what_it_may_be() {
        for (field, value) in [
            ("batch_items", "0"),
            ("batch_items", "1001"),
            ("batch_items", "-1"),
            ("batch_items", "\"many\""),
            ("batch_bytes", "1"),
            ("linger_ms", "10001"),
            ("window_batches", "0"),
            ("window_items", "2001"),
            ("window_bytes", "1099511627776"),
            ("rate_per_s", "0"),
            ("signature_window_s", "59"),
            ("signature_window_s", "86401"),
            ("profile", "\"friendica\""),
            ("paused", "1"),
            ("park", "0"),
            ("batch_url", "\"ftp://batch.example/\""),
            ("batch_url", "\"/batch\""),
            ("batch_url", "\"https://me:s3cret@batch.example/\""),
            ("batch_url_before", "\"https:///\""),
            ("batch_url_before", "\"https://batch.example/#x\""),
            ("batch_url_forced", "\"yes\""),
            ("max_batch", "501"),
            ("max_batch", "70000"),
            ("max_expires_s", "0"),
            ("batch_size", "5"),
        ] {
            let found = faults(&format!("{{\"{field}\":{value}}}"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, field, "{found:?}");
            assert!(!found[0].1.contains("s3cret"), "{found:?}");
        }
        assert_eq!(faults("{\"rate_per_s\":0}")[0].1, "is 0, must be 1 to 1000000 (to stop a lane there is paused)");
        assert!(faults("{\"batch_size\":5}")[0].1.starts_with("no such setting; there are batch_items, batch_bytes"));
    }

    #[test]
    fn all_faults_of_an_entry_are_found_at_once() {
        let found = faults(r#"{"batch_items":0,"colour":"red","profile":5,"linger_ms":20}"#);
        let mut fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["batch_items", "colour", "profile"]);
        for whole in ["", "[]", "null", "{", "7"] {
            assert_eq!(faults(whole)[0].0, "entry", "{whole}");
        }
    }

    #[test]
    fn a_window_that_no_full_batch_fits_into_is_refused() {
        assert_eq!(faults(r#"{"batch_items":100,"window_items":50}"#)[0].0, "window_items");
        assert_eq!(faults(r#"{"batch_bytes":4096,"window_bytes":2048}"#)[0].0, "window_bytes");
    }

    #[test]
    fn a_lanes_own_settings_go_before_the_defaults_and_a_former_address_is_its_own() {
        let read = |json: &str| LaneSettings::read(json.as_bytes()).expect(json);
        let default = read(r#"{"batch_items":10,"paused":true,"batch_url":"https://a.example/"}"#);
        let own = read(r#"{"paused":false,"park":3,"batch_url_before":"https://b.example/"}"#);
        let both = r#"{"batch_items":10,"paused":false,"park":3,
            "batch_url":"https://a.example/","batch_url_before":"https://b.example/"}"#;
        assert_eq!(own.over(&default), read(both), "on its way to the default's new address");
        let other = read(r#"{"batch_url":"https://c.example/"}"#).over(&default);
        assert_eq!((other.batch_url.as_deref(), other.batch_url_before), (Some("https://c.example/"), None));
    }
}
