//! A batch as a CBOR sequence: maps with small integer keys, bodies and header values as byte strings.
//!
//! | key | header item | key | activity item |
//! |---|---|---|---|
//! | 0 | version, 2 | 0 | sequence |
//! | 1 | site | 1 | message id |
//! | 2 | stream created, us since 1970 | 2 | received at, us since 1970 |
//! | 3 | destination | 3 | scheme |
//! | 4 | source | 4 | target |
//! | 5 | epoch | 5 | HTTP headers, array of [name, value bytes] |
//! | 6 | gate id, or absent | 6 | body bytes |
//! | 7 | floor | 7 | activity id |
//! | 8 | prev | 8 | traceparent, or absent |
//! | 9 | number of activity items | 9 | tracestate, or absent |
//! | 10 | profile, or absent: the receiver's own | | |
//!
//! Unknown keys are skipped, so that a later version can add some. The number of items in the header tells a batch
//! that was cut from one that ends.

use bytes::Bytes;
use fedstream_lane::{Epoch, GateId, Lane, MsgId, Origin, Profile, Seq};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::VERSION;

/// The longest message id that is taken, bytes: a hex hash with room for a re-drive's suffix.
const MSG_ID_BYTES_MAX: usize = 256;

/// The most HTTP headers of one activity that are taken, `host` among them.
pub const HTTP_HEADERS_MAX: usize = 256;

/// The first item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Whose stream the sequences are of.
    pub origin: Origin,
    /// The lane of every item.
    pub lane: Lane,
    /// The owner's fencing token.
    pub epoch: Epoch,
    /// The gate that the batch is meant for; none before the sender knows it.
    pub gate: Option<GateId>,
    /// Everything up to here is settled at the sender.
    pub floor: Seq,
    /// The item that this owner put just before the first one, or the floor.
    pub prev: Seq,
    /// How the instance's refusals are read; none: as the receiver is told.
    pub profile: Option<Profile>,
}

/// One activity of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchItem {
    /// Its stream sequence.
    pub seq: Seq,
    /// The id under which it was stored.
    pub msg_id: MsgId,
    /// When the front door took it, microseconds since 1970.
    pub received_at_us: i64,
    /// The scheme that its sender used.
    pub scheme: String,
    /// Path and query exactly as received.
    pub target: String,
    /// The HTTP headers to replay, in order, `host` included.
    pub http: Vec<(String, Bytes)>,
    /// The request body.
    pub body: Bytes,
    /// The activity's id, for people and logs.
    pub activity_id: String,
    /// W3C trace context of its delivery.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
}

/// One HTTP body of activities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What holds for all of them.
    pub header: BatchHeader,
    /// In lane order.
    pub items: Vec<BatchItem>,
}

/// A batch that was not understood. Nothing of it may be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another version.
    #[error("the batch has version {0}, this receiver reads {VERSION}")]
    Version(u64),
    /// A field can't be read. Item 0 is the header, 1 the first activity.
    #[error("item {item}: {field} is missing or malformed")]
    Field {
        /// Which item.
        item: usize,
        /// Which field.
        field: &'static str,
    },
    /// Not as many items as the header says.
    #[error("the header says {said} items, the body has {found}")]
    Count {
        /// In the header.
        said: u64,
        /// In the body.
        found: usize,
    },
    /// More items than the receiver takes.
    #[error("the batch has {said} items, at most {most} are taken")]
    TooMany {
        /// In the header.
        said: u64,
        /// The limit.
        most: usize,
    },
    /// Not in lane order, or at or below `prev`.
    #[error("item {item}: sequence {seq} does not come after {before}")]
    Order {
        /// Which item.
        item: usize,
        /// Its sequence.
        seq: Seq,
        /// The one that it should come after.
        before: Seq,
    },
}

impl Batch {
    /// Writes the sequence.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let size: usize = self.items.iter().map(BatchItem::size_hint).sum();
        let mut e = Encoder::new(Vec::with_capacity(256 + size));
        // Writing into a Vec can't fail: its error type is Infallible.
        let Ok(()) = encode_header(&mut e, &self.header, self.items.len());
        for item in &self.items {
            let Ok(()) = encode_item(&mut e, item);
        }
        e.into_writer()
    }

    /// Reads a sequence. Byte strings are slices of `body`, not copies.
    ///
    /// # Errors
    /// Names item and field; checked: version, number of items (at most `items_max`), and that sequences grow
    /// above `prev`, and `prev` is not below the floor.
    pub fn decode(body: &Bytes, items_max: usize) -> Result<Self, Error> {
        let mut d = Decoder::new(body);
        let (header, said) = decode_header(&mut d)?;
        if said > items_max as u64 {
            return Err(Error::TooMany { said, most: items_max });
        }
        let mut items = Vec::new();
        let mut before = header.prev;
        while d.position() < body.len() {
            let number = items.len() + 1;
            if number as u64 > said {
                return Err(Error::Count { said, found: number });
            }
            let item = decode_item(&mut d, body, number)?;
            if item.seq <= before {
                return Err(Error::Order { item: number, seq: item.seq, before });
            }
            before = item.seq;
            items.push(item);
        }
        if items.len() as u64 != said {
            return Err(Error::Count { said, found: items.len() });
        }
        Ok(Self { header, items })
    }
}

impl BatchItem {
    /// About how many bytes it takes in a batch; never less than its body and headers.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        let http: usize = self.http.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let texts = self.msg_id.as_str().len() + self.target.len() + self.activity_id.len();
        128 + http + texts + self.body.len()
    }
}

type Encoded = Result<(), std::convert::Infallible>;

/// Turns minicbor's error, which a `Vec` never causes, into none.
fn infallible<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) -> Encoded {
    debug_assert!(result.is_ok(), "writing CBOR into memory does not fail");
    Ok(())
}

fn encode_header(e: &mut Encoder<Vec<u8>>, header: &BatchHeader, items: usize) -> Encoded {
    let fields = 9 + u64::from(header.gate.is_some()) + u64::from(header.profile.is_some());
    infallible((|| {
        e.map(fields)?.u8(0)?.u64(VERSION)?;
        e.u8(1)?.str(&header.origin.site)?.u8(2)?.u64(header.origin.created_us)?;
        e.u8(3)?.str(header.lane.destination.as_str())?.u8(4)?.str(header.lane.source.as_str())?;
        e.u8(5)?.u64(header.epoch.0)?;
        if let Some(gate) = header.gate {
            e.u8(6)?.u64(gate.0)?;
        }
        e.u8(7)?.u64(header.floor.0)?.u8(8)?.u64(header.prev.0)?.u8(9)?.u64(items as u64)?;
        if let Some(profile) = header.profile {
            e.u8(10)?.str(profile.as_str())?;
        }
        Ok(())
    })())
}

fn encode_item(e: &mut Encoder<Vec<u8>>, item: &BatchItem) -> Encoded {
    let fields = 8 + u64::from(item.traceparent.is_some()) + u64::from(item.tracestate.is_some());
    infallible((|| {
        e.map(fields)?.u8(0)?.u64(item.seq.0)?.u8(1)?.str(item.msg_id.as_str())?;
        e.u8(2)?.i64(item.received_at_us)?.u8(3)?.str(&item.scheme)?.u8(4)?.str(&item.target)?;
        e.u8(5)?.array(item.http.len() as u64)?;
        for (name, value) in &item.http {
            e.array(2)?.str(name)?.bytes(value)?;
        }
        e.u8(6)?.bytes(&item.body)?.u8(7)?.str(&item.activity_id)?;
        if let Some(traceparent) = &item.traceparent {
            e.u8(8)?.str(traceparent)?;
        }
        if let Some(tracestate) = &item.tracestate {
            e.u8(9)?.str(tracestate)?;
        }
        Ok(())
    })())
}

/// What a malformed field is called, by item and key.
struct At {
    item: usize,
}

impl At {
    fn field<T, E>(&self, field: &'static str, read: Result<T, E>) -> Result<T, Error> {
        read.map_err(|_| Error::Field { item: self.item, field })
    }

    fn need<T>(&self, field: &'static str, value: Option<T>) -> Result<T, Error> {
        value.ok_or(Error::Field { item: self.item, field })
    }

    /// Calls `read` for each key of a map; unknown keys are skipped.
    fn map<'b>(
        &self,
        d: &mut Decoder<'b>,
        mut read: impl FnMut(u64, &mut Decoder<'b>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let fields = self.need("the map", self.field("the map", d.map())?)?; // of known length
        for _ in 0..fields {
            let key = self.field("a key", d.u64())?;
            if !read(key, d)? {
                self.field("an unknown field", d.skip())?;
            }
        }
        Ok(())
    }
}

fn decode_header(d: &mut Decoder<'_>) -> Result<(BatchHeader, u64), Error> {
    let at = At { item: 0 };
    let (mut version, mut site, mut created, mut destination, mut source) = (None, None, None, None, None);
    let (mut epoch, mut gate, mut floor, mut prev, mut count) = (None, None, None, None, None);
    let mut profile = None;
    at.map(d, |key, d| {
        match key {
            0 => {
                let found = at.field("version", d.u64())?;
                if found != VERSION {
                    return Err(Error::Version(found));
                }
                version = Some(found);
            }
            1 => site = Some(at.field("site", d.str())?),
            2 => created = Some(at.field("stream created", d.u64())?),
            3 => destination = Some(at.field("destination", at.field("destination", d.str())?.parse())?),
            4 => source = Some(at.field("source", at.field("source", d.str())?.parse())?),
            5 => epoch = Some(Epoch(at.field("epoch", d.u64())?)),
            6 => gate = Some(GateId(at.field("gate", d.u64())?)),
            7 => floor = Some(Seq(at.field("floor", d.u64())?)),
            8 => prev = Some(Seq(at.field("prev", d.u64())?)),
            9 => count = Some(at.field("number of items", d.u64())?),
            10 => profile = Some(at.field("profile", at.field("profile", d.str())?.parse())?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    at.need("version", version)?;
    let site = at.need("site", site.filter(|site: &&str| !site.is_empty() && site.len() <= 255))?;
    let header = BatchHeader {
        origin: Origin { site: site.into(), created_us: at.need("stream created", created)? },
        lane: Lane { destination: at.need("destination", destination)?, source: at.need("source", source)? },
        epoch: at.need("epoch", epoch)?,
        gate,
        floor: at.need("floor", floor)?,
        prev: at.need("prev", prev)?,
        profile,
    };
    if header.prev < header.floor {
        return Err(Error::Field { item: 0, field: "prev (below the floor)" });
    }
    Ok((header, at.need("number of items", count)?))
}

fn decode_item(d: &mut Decoder<'_>, whole: &Bytes, item: usize) -> Result<BatchItem, Error> {
    let at = At { item };
    let (mut seq, mut msg_id, mut received_at_us, mut scheme, mut target) = (None, None, None, None, None);
    let (mut http, mut body, mut activity_id, mut traceparent, mut tracestate) = (None, None, None, None, None);
    at.map(d, |key, d| {
        match key {
            0 => seq = Some(Seq(at.field("sequence", d.u64())?)),
            1 => msg_id = Some(at.field("message id", d.str())?),
            2 => received_at_us = Some(at.field("received at", d.i64())?),
            3 => scheme = Some(at.field("scheme", d.str())?),
            4 => target = Some(at.field("target", d.str())?),
            5 => http = Some(decode_http(&at, d, whole)?),
            6 => body = Some(whole.slice_ref(at.field("body", d.bytes())?)),
            7 => activity_id = Some(at.field("activity id", d.str())?),
            8 => traceparent = optional_text(&at, "traceparent", d)?,
            9 => tracestate = optional_text(&at, "tracestate", d)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let msg_id = at.need("message id", msg_id.filter(|id: &&str| !id.is_empty() && id.len() <= MSG_ID_BYTES_MAX))?;
    Ok(BatchItem {
        seq: at.need("sequence", seq)?,
        msg_id: MsgId::new(msg_id),
        received_at_us: at.need("received at", received_at_us)?,
        scheme: at.need("scheme", scheme.filter(|scheme: &&str| matches!(*scheme, "http" | "https")))?.to_owned(),
        target: at.need("target", target.filter(|target: &&str| target.starts_with('/')))?.to_owned(),
        http: at.need("HTTP headers", http)?,
        body: at.need("body", body)?,
        activity_id: at.need("activity id", activity_id)?.to_owned(),
        traceparent,
        tracestate,
    })
}

fn decode_http(at: &At, d: &mut Decoder<'_>, whole: &Bytes) -> Result<Vec<(String, Bytes)>, Error> {
    let field = "HTTP headers";
    let count = at.need(field, at.field(field, d.array())?.filter(|count| *count <= HTTP_HEADERS_MAX as u64))?;
    let mut http = Vec::new();
    for _ in 0..count {
        at.need(field, at.field(field, d.array())?.filter(|pair| *pair == 2))?;
        let name = at.field(field, d.str())?.to_owned();
        http.push((name, whole.slice_ref(at.field(field, d.bytes())?)));
    }
    Ok(http)
}

fn optional_text(at: &At, field: &'static str, d: &mut Decoder<'_>) -> Result<Option<String>, Error> {
    if at.field(field, d.datatype())? == Type::Null {
        at.field(field, d.null())?;
        return Ok(None);
    }
    Ok(Some(at.field(field, d.str())?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let item = |seq: u64| BatchItem {
            seq: Seq(seq),
            msg_id: MsgId::new(format!("m{seq}")),
            received_at_us: 1_795_319_944_000_110,
            scheme: "https".into(),
            target: "/a/../inbox?x='".into(),
            http: vec![
                ("host".into(), Bytes::from_static(b"b.example")),
                ("x".into(), Bytes::from_static(b"\xff\x00")),
            ],
            body: Bytes::from_static(b"{\"id\":\"\xc3\"}"),
            activity_id: format!("https://a.example/{seq}"),
            traceparent: (seq == 12).then(|| "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
            tracestate: None,
        };
        let lane =
            Lane { destination: "b.example".parse().expect("name"), source: "a.example:81".parse().expect("name") };
        let header = BatchHeader {
            origin: Origin { site: "near".into(), created_us: 1_795_000_000_000_000 },
            lane,
            epoch: Epoch(1_795_319_944_000),
            gate: Some(GateId(0xfeed_face_0000_0001)),
            floor: Seq(9),
            prev: Seq(10),
            profile: None,
        };
        Batch { header, items: vec![item(12), item(15)] }
    }

    fn decode(bytes: Vec<u8>) -> Result<Batch, Error> {
        Batch::decode(&bytes.into(), 100)
    }

    #[test]
    fn a_batch_reads_back() {
        assert_eq!(decode(batch().encode()), Ok(batch()));
        let mut empty = batch();
        (empty.header.gate, empty.header.profile, empty.items) = (None, Some(Profile::Lemmy), vec![]);
        assert_eq!(decode(empty.encode()), Ok(empty));
    }

    #[test]
    fn the_bytes_on_the_wire_are_the_golden_ones() {
        let golden = include_str!("../../tests/golden/batch-v2.hex");
        let golden: String =
            golden.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
        let hex: String = batch().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
    }

    #[test]
    fn a_cut_or_altered_batch_is_never_understood_as_less() {
        let whole = batch().encode();
        for length in 0..whole.len() {
            assert!(decode(whole[..length].to_vec()).is_err(), "cut at {length}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(decode(longer).is_err());
    }

    #[test]
    fn no_byte_string_makes_it_panic() {
        let whole = batch().encode();
        for at in 0..whole.len() {
            for byte in [0x00, 0x1b, 0x3b, 0x5b, 0x7b, 0x9b, 0xbb, 0xbf, 0xff] {
                let mut altered = whole.clone();
                altered[at] = byte;
                drop(decode(altered));
            }
        }
    }

    #[test]
    fn an_error_names_item_and_field() {
        let mut bad = batch();
        bad.items[1].target = "inbox".into();
        assert_eq!(decode(bad.encode()), Err(Error::Field { item: 2, field: "target" }));
        let mut bad = batch();
        bad.items[1].seq = Seq(12);
        assert_eq!(decode(bad.encode()), Err(Error::Order { item: 2, seq: Seq(12), before: Seq(12) }));
        let mut bad = batch();
        bad.header.prev = Seq(8);
        assert!(matches!(decode(bad.encode()), Err(Error::Field { item: 0, .. })));
        assert_eq!(Batch::decode(&batch().encode().into(), 1), Err(Error::TooMany { said: 2, most: 1 }));
        let mut version = batch().encode();
        version[2] = 3;
        assert_eq!(decode(version), Err(Error::Version(3)));
    }
}
