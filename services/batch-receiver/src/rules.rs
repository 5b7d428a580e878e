//! What may be relayed: to which instances, to which paths, how large. Without it a batch-receiver is an open relay
//! into the operator's network for whoever has the credential.

use std::collections::HashMap;

use fedstream_lane::{InstanceName, Lane};
use fedstream_service::paths::{self, PathPattern};
use fedstream_wire::v2::{Batch, BatchItem};
use http::uri::Authority;

use crate::config::Config;
use crate::parcel::{self, Parcel};

/// The rules of this receiver.
#[derive(Debug)]
pub struct Rules {
    /// Where each destination is reached.
    destinations: HashMap<InstanceName, Authority>,
    inbox_paths: Vec<PathPattern>,
    body_bytes_max: usize,
}

/// A batch all of which may be relayed.
#[derive(Debug)]
pub struct Allowed {
    /// Where its instance is reached.
    pub address: Authority,
    /// Its activities.
    pub parcels: Vec<Parcel>,
}

/// Why nothing of a batch is relayed. Item 1 is the first activity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not on the list.
    #[error("{0} is no destination here; FED_DESTINATIONS has no entry {0}")]
    Destination(InstanceName),
    /// The activity is for somebody else than its lane.
    #[error("item {item}: its Host ({found}) is not its lane's destination {destination}")]
    Host {
        /// Which item.
        item: usize,
        /// What its headers say.
        found: String,
        /// What the batch says.
        destination: InstanceName,
    },
    /// Not an inbox.
    #[error("item {item}: {target:?} is no inbox; FED_INBOX_PATHS has no pattern for it")]
    Path {
        /// Which item.
        item: usize,
        /// Its target.
        target: String,
    },
    /// Too large an activity.
    #[error("item {item}: its body has {found} bytes, FED_BODY_MAX allows {most}")]
    TooLarge {
        /// Which item.
        item: usize,
        /// Its bytes.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// It can't be replayed as it is.
    #[error("item {item}: {fault}")]
    Unfit {
        /// Which item.
        item: usize,
        /// What can't.
        #[source]
        fault: parcel::Error,
    },
}

/// A destination that can't be reached under its name.
#[derive(Debug, thiserror::Error)]
#[error("FED_DESTINATIONS: {0} can't be part of a URL")]
pub struct Unreachable(InstanceName);

impl Rules {
    /// The rules that the configuration asks for.
    ///
    /// # Errors
    /// A destination whose name no URL can have.
    pub fn new(config: &Config) -> Result<Self, Unreachable> {
        let address = |name: &InstanceName| match &config.domain {
            Some(domain) => Ok(domain.clone()),
            None => name.as_str().parse().map_err(|_| Unreachable(name.clone())),
        };
        let names = config.destinations.as_slice();
        let destinations = names.iter().map(|name| Ok((name.clone(), address(name)?))).collect::<Result<_, _>>()?;
        Ok(Self {
            destinations,
            inbox_paths: config.inbox_paths.as_slice().to_vec(),
            body_bytes_max: config.body_max.get(),
        })
    }

    /// The whole batch as requests, or why nothing of it.
    ///
    /// # Errors
    /// The first thing that is not allowed.
    pub fn check(&self, batch: Batch) -> Result<Allowed, Error> {
        let Lane { destination, .. } = &batch.header.lane;
        let address = self.destinations.get(destination).ok_or_else(|| Error::Destination(destination.clone()))?;
        let parcels = batch.items.into_iter().zip(1..).map(|(item, number)| self.check_item(destination, number, item));
        Ok(Allowed { address: address.clone(), parcels: parcels.collect::<Result<_, _>>()? })
    }

    /// One activity for this destination as a request, and where it goes. `number` is its place in the batch.
    ///
    /// # Errors
    /// The first thing that is not allowed.
    pub fn check_one(
        &self,
        destination: &InstanceName,
        number: usize,
        item: BatchItem,
    ) -> Result<(Authority, Parcel), Error> {
        let address = self.destinations.get(destination).ok_or_else(|| Error::Destination(destination.clone()))?;
        Ok((address.clone(), self.check_item(destination, number, item)?))
    }

    fn check_item(&self, destination: &InstanceName, number: usize, item: BatchItem) -> Result<Parcel, Error> {
        let item_host = host(&item);
        if !matches!(&item_host, Ok(name) if name == destination) {
            let found = item_host.map_or_else(|text| text, |name| name.to_string());
            return Err(Error::Host { item: number, found, destination: destination.clone() });
        }
        if !paths::is_inbox(&self.inbox_paths, &item.target) {
            return Err(Error::Path { item: number, target: parcel::shown(&item.target) });
        }
        if item.body.len() > self.body_bytes_max {
            return Err(Error::TooLarge { item: number, found: item.body.len(), most: self.body_bytes_max });
        }
        Parcel::of(item).map_err(|fault| Error::Unfit { item: number, fault })
    }
}

/// The instance that the item's one Host header names, or what is there instead.
fn host(item: &BatchItem) -> Result<InstanceName, String> {
    let mut hosts = item.http.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    let Some((_, value)) = hosts.next() else { return Err("none".into()) };
    if hosts.next().is_some() {
        return Err("more than one".into());
    }
    let text = String::from_utf8_lossy(value).into_owned();
    text.parse().map_err(|_| parcel::shown(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SERVICE;
    use bytes::Bytes;
    use fedstream_lane::{Epoch, MsgId, Origin, Seq};
    use fedstream_service::config::{Environment, load_from};
    use fedstream_wire::v2::BatchHeader;

    fn rules(more: &[(&str, &str)]) -> Rules {
        let mut pairs = vec![
            ("FED_OPEN_RECEIVER", "yes"),
            ("FED_DESTINATIONS", "b.example,c.example:8443"),
            ("FED_BODY_MAX", "1KiB"),
        ];
        pairs.extend(more);
        Rules::new(&load_from(&SERVICE, &Environment::from_pairs(&pairs)).expect("configuration")).expect("rules")
    }

    fn batch(destination: &str, hosts: &[&str], target: &str) -> Batch {
        let lane = Lane { destination: destination.parse().expect("name"), source: "a.example".parse().expect("name") };
        let origin = Origin { site: "near".into(), created_us: 1 };
        let header =
            BatchHeader { origin, lane, epoch: Epoch(1), gate: None, floor: Seq(0), prev: Seq(0), profile: None };
        let item = BatchItem {
            seq: Seq(1),
            msg_id: MsgId::new("m1"),
            received_at_us: 0,
            scheme: "https".into(),
            target: target.into(),
            http: hosts.iter().map(|host| ("host".to_owned(), Bytes::copy_from_slice(host.as_bytes()))).collect(),
            body: Bytes::from_static(b"{}"),
            activity_id: "https://a.example/1".into(),
            traceparent: None,
            tracestate: None,
        };
        Batch { header, items: vec![item] }
    }

    #[test]
    fn an_activity_for_its_lane_on_the_list_is_allowed_however_its_host_is_spelt() {
        for (destination, host, address) in [
            ("b.example", "B.Example:443", "b.example"),
            ("b.example", "b.example.", "b.example"),
            ("c.example:8443", "c.example:8443", "c.example:8443"),
        ] {
            let allowed = rules(&[]).check(batch(destination, &[host], "/u/%40bob/inbox?x")).expect(host);
            assert_eq!(allowed.address.as_str(), address);
            assert_eq!(allowed.parcels[0].headers["host"], host, "and goes out as it was");
        }
    }

    #[test]
    fn the_override_is_where_all_destinations_are_reached() {
        let rules = rules(&[("OVERRIDE_DESTINATION_DOMAIN", "lemmy:8536")]);
        assert_eq!(
            rules.check(batch("b.example", &["b.example"], "/inbox")).expect("allowed").address.as_str(),
            "lemmy:8536"
        );
    }

    #[test]
    fn a_destination_that_is_not_on_the_list_is_named_as_the_entry_to_add() {
        let error =
            rules(&[]).check(batch("internal:8080", &["internal:8080"], "/inbox")).expect_err("not on the list");
        assert!(error.to_string().ends_with("FED_DESTINATIONS has no entry internal:8080"), "{error}");
    }

    #[test]
    fn an_activity_for_somebody_else_than_its_lane_is_refused() {
        for hosts in [
            &["c.example:8443"][..],
            &["b.example:8443"],
            &[],
            &["b.example", "b.example"],
            &["b.example/x"],
            &["\u{fffd}"],
        ] {
            let error = rules(&[]).check(batch("b.example", hosts, "/inbox")).expect_err("another host");
            assert!(matches!(error, Error::Host { item: 1, .. }), "{hosts:?}: {error}");
        }
    }

    #[test]
    fn only_inboxes_of_bearable_size_are_posted_to() {
        let rules = rules(&[]);
        assert!(matches!(
            rules.check(batch("b.example", &["b.example"], "/admin?/inbox")),
            Err(Error::Path { item: 1, .. })
        ));
        assert!(matches!(
            rules.check(batch("b.example", &["b.example"], "/inbox?#/inbox")),
            Err(Error::Unfit { item: 1, .. })
        ));
        let mut large = batch("b.example", &["b.example"], "/inbox");
        large.items[0].body = Bytes::from(vec![b' '; 1025]);
        assert!(matches!(rules.check(large), Err(Error::TooLarge { item: 1, found: 1025, most: 1024 })));
    }
}
