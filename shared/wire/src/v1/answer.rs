//! The answer to a v1 batch: a JSON array, one entry for each activity that was tried, in order.
//!
//! | field | |
//! |---|---|
//! | `time` | when the instance answered, as in a batch |
//! | `activity_id` | the batch's at the same index |
//! | `status` | of the instance; an integer |
//! | `headers` | of the instance's answer, `[name, value]` |
//! | `content_type` | text or null |
//! | `body` | text, or null where the answer had no Content-Length or an empty body |
//!
//! It is as long as the batch, or it ends with an entry that is not tolerable: 408, 429 or 5xx. What stands before that
//! one is settled. An answer that is anything else settles nothing: there is no sequence that could tell which
//! activity an entry is really about.
//!
//! A refusal whose reason did not come along is one like any other, though the reason might have said "again" or "known
//! already": it is final, so a copy is parked, and it counts towards the refusals that pause a lane. To try it again could
//! block the lane for good, and to overlook it in the count would let a wrong override park everything. So that it
//! seldom happens, a batch asks for answers that have a length ([`super::batch`]).

use fedstream_lane::{Answer, Final, Profile};
use serde::Serialize;
use serde::de::MapAccess;
use time::OffsetDateTime;

use super::json::{self, At, Fields};
use super::text::Text;
use crate::profile::{self, Reading};

/// How much of the instance's answer a refusal keeps, bytes: as in v2.
const BODY_KEPT_BYTES: usize = 4096;

/// What became of one activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When the instance answered.
    pub time: OffsetDateTime,
    /// The activity's id, as the batch had it.
    pub activity_id: String,
    /// Status of the instance, 100 to 999.
    pub status: u16,
    /// Headers of its answer.
    pub headers: Vec<(String, String)>,
    /// Its Content-Type.
    pub content_type: Option<String>,
    /// Its body, for people.
    pub body: Option<String>,
}

/// An answer that fits its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The batch's first activities, each with a status that is final.
    pub settled: Vec<Entry>,
    /// The activity behind them, whose status is not tolerable; none where all are settled.
    pub stopped: Option<Entry>,
}

/// An answer that settles nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no such array. Entry 1 is the first, 0 the array itself; no field: the entry itself.
    #[error("entry {entry} of the answer: {field} is malformed: {cause}")]
    Malformed {
        /// Which entry.
        entry: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// It has more entries than the batch has activities.
    #[error("the answer has more than the {asked} entries that were asked for")]
    TooLong {
        /// Activities in the batch.
        asked: usize,
    },
    /// It ends early, though nothing in it says why.
    #[error("the answer has {found} of {asked} entries, and the last one has no status that would explain it")]
    TooShort {
        /// Entries in it.
        found: usize,
        /// Activities in the batch.
        asked: usize,
    },
    /// It goes on after an activity that was not tolerable: what came after it overtook it.
    #[error("the answer goes on after entry {entry}, which has status {status}")]
    GoesOn {
        /// Which entry.
        entry: usize,
        /// Its status.
        status: u16,
    },
    /// An entry is about another activity.
    #[error("entry {entry} of the answer is about {found:?}, asked for was {expected:?}")]
    OtherActivity {
        /// Which entry.
        entry: usize,
        /// Its id, or the beginning of it.
        found: String,
        /// The batch's.
        expected: String,
    },
}

/// What a report means to a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes {
    /// Of the batch's first activities.
    pub finals: Vec<Answer>,
    /// Why the activity behind them has to be tried again, if one has.
    pub again: Option<Again>,
}

/// An activity without a final outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// Status in its entry.
    pub status: u16,
    /// What the instance asked for, where it said so in seconds.
    pub retry_after_s: Option<u64>,
    /// The reason in words.
    pub cause: String,
}

impl Report {
    /// The final outcomes, as an instance of this kind means its refusals. They may end before `settled` does: the
    /// existing receiver goes on after a redirect, and after a 400 that only says that the database is away. Such an
    /// activity is tried again, and those behind it too, which the instance knows by then.
    #[must_use]
    pub fn outcomes(&self, profile: Profile) -> Outcomes {
        let mut finals = Vec::with_capacity(self.settled.len());
        for entry in self.settled.iter().chain(&self.stopped) {
            match entry.outcome(profile) {
                Ok(answer) => finals.push(answer),
                Err(cause) => {
                    let again = Again { status: entry.status, retry_after_s: entry.retry_after_s(), cause };
                    return Outcomes { finals, again: Some(again) };
                }
            }
        }
        Outcomes { finals, again: None }
    }
}

impl Entry {
    /// The final outcome, or why it has none.
    fn outcome(&self, profile: Profile) -> Result<Answer, String> {
        let status = self.status;
        let body = self.body.as_deref().unwrap_or_default();
        let answer = |outcome, body: Option<&str>| Answer { outcome, status, body: body.map(Into::into) };
        let kept = Some(&body[..body.floor_char_boundary(BODY_KEPT_BYTES)]);
        match status {
            200..300 => return Ok(answer(Final::Delivered, None)),
            100..400 | 408 | 429 | 500..600 => return Err(format!("the instance answered {status}")),
            _ => {}
        }
        match profile::read(profile, status, body.as_bytes()) {
            Reading::Duplicate => Ok(answer(Final::Duplicate, None)),
            Reading::Expired => Ok(answer(Final::Expired, kept)),
            Reading::Unprocessed => Ok(answer(Final::Unprocessed, kept)),
            Reading::Rejected => Ok(answer(Final::Rejected, kept)),
            Reading::Retry(why) => Err(format!("the instance answered {status}: {why}")),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        let (_, value) = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
        value.trim().parse().ok()
    }
}

/// Is the status one after which the batch goes on? Not 408, 429 and 5xx: those are about the moment, and what comes
/// behind must not overtake.
#[must_use]
pub fn is_tolerable(status: u16) -> bool {
    !matches!(status, 408 | 429 | 500..600)
}

/// An answer of these entries.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(Written::of).collect();
    // Texts and numbers always serialise; an empty answer would be read as malformed, which settles nothing.
    serde_json::to_vec(&entries).unwrap_or_default()
}

/// Reads the answer to a batch of these activity ids, and checks it against them index by index.
///
/// # Errors
/// It settles nothing.
pub fn read<'a>(json: &[u8], asked: impl ExactSizeIterator<Item = &'a str>) -> Result<Report, AnswerError> {
    let count = asked.len();
    let entries: Vec<Entry> = json::read_array(json, count).map_err(|fault| match fault {
        json::Fault { too_many: true, .. } => AnswerError::TooLong { asked: count },
        json::Fault { item, field, cause, .. } => {
            AnswerError::Malformed { entry: item, field: if field.is_empty() { "it" } else { field }, cause }
        }
    })?;
    for ((entry, expected), number) in entries.iter().zip(asked).zip(1..) {
        if entry.activity_id != expected {
            let shown = |text: &str| text.chars().take(200).collect();
            return Err(AnswerError::OtherActivity {
                entry: number,
                found: shown(&entry.activity_id),
                expected: shown(expected),
            });
        }
    }
    let (found, mut settled) = (entries.len(), entries);
    let stopped_at = settled.iter().position(|entry| !is_tolerable(entry.status));
    match stopped_at {
        Some(at) if at + 1 < found => Err(AnswerError::GoesOn { entry: at + 1, status: settled[at].status }),
        Some(_) => {
            let stopped = settled.pop();
            Ok(Report { settled, stopped })
        }
        None if found < count => Err(AnswerError::TooShort { found, asked: count }),
        None => Ok(Report { settled, stopped: None }),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    time: String,
    activity_id: &'a str,
    status: u16,
    headers: &'a [(String, String)],
    content_type: Option<&'a str>,
    body: Option<&'a str>,
}

impl<'a> Written<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            time: json::time_text(entry.time),
            activity_id: &entry.activity_id,
            status: entry.status,
            headers: &entry.headers,
            content_type: entry.content_type.as_deref(),
            body: entry.body.as_deref(),
        }
    }
}

#[derive(Default)]
pub(super) struct Partial {
    time: Option<String>,
    activity_id: Option<String>,
    status: Option<u64>,
    headers: Option<Vec<(Text, Text)>>,
    content_type: Option<Text>,
    body: Option<Text>,
}

impl Fields for Entry {
    type Partial = Partial;

    fn read<'de, A: MapAccess<'de>>(entry: &mut Partial, key: &str, map: &mut A, at: &At) -> Result<bool, A::Error> {
        match key {
            "time" => entry.time = Some(at.value("time", map)?),
            "activity_id" => entry.activity_id = Some(at.value("activity_id", map)?),
            "status" => entry.status = Some(at.value("status", map)?),
            "headers" => entry.headers = Some(at.value("headers", map)?),
            "content_type" => entry.content_type = at.value("content_type", map)?,
            "body" => entry.body = at.value("body", map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `content_type` and `body` may be null, so they may be absent too.
    fn whole(entry: Partial) -> Result<Self, (&'static str, String)> {
        fn need<T>(field: &'static str, value: Option<T>) -> Result<T, (&'static str, String)> {
            value.ok_or_else(|| (field, "it is not there".to_owned()))
        }
        let status = need("status", entry.status)?;
        let time = need("time", entry.time)?;
        Ok(Self {
            time: json::time(&time).ok_or_else(|| ("time", "it is no time with an offset".to_owned()))?,
            activity_id: need("activity_id", entry.activity_id)?,
            status: u16::try_from(status)
                .ok()
                .filter(|status| (100..1000).contains(status))
                .ok_or_else(|| ("status", format!("{status} is no HTTP status")))?,
            headers: need("headers", entry.headers)?.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
            content_type: entry.content_type.map(|text| text.0),
            body: entry.body.map(|text| text.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_micros;

    const GOLDEN: &str = include_str!("../../tests/golden/answer-v1.json");
    /// What we write.
    const GOLDEN_OURS: &str = include_str!("../../tests/golden/answer-v1-ours.json");

    const ASKED: [&str; 3] = ["https://a.example/1", "https://a.example/2", "https://a.example/2"];

    fn entry(number: usize, status: u16) -> Entry {
        Entry {
            time: from_micros(1_719_784_076_000_000).expect("time"),
            activity_id: ASKED[number - 1].into(),
            status,
            headers: vec![],
            content_type: None,
            body: None,
        }
    }

    fn of(entries: &[Entry]) -> Result<Report, AnswerError> {
        read(&encode(entries), ASKED.into_iter())
    }

    #[test]
    fn a_documented_answer_is_read() {
        let report = read(GOLDEN.as_bytes(), ASKED.into_iter()).expect("reads");
        let [first, second] = &report.settled[..] else { panic!("two: {report:?}") };
        assert_eq!(
            (first.status, first.content_type.as_deref(), first.body.as_deref()),
            (400, Some("application/json"), Some("{\"error\":\"unknown\",\"message\":\"\"}"))
        );
        let headers = [("cOnTeNt-TyPe", "application/json"), ("Set-Cookie", "a"), ("set-cookie", "b")];
        assert_eq!(first.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(crate::rfc3339(first.time), "2024-06-30T21:47:56.123456Z");
        assert_eq!((second.status, &second.content_type, &second.body), (200, &None, &None), "nulls");
        assert_eq!(report.stopped.as_ref().map(|entry| entry.status), Some(503));
    }

    #[test]
    fn what_we_write_is_the_golden_answer_and_reads_back() {
        let full = Entry {
            headers: vec![("content-type".into(), "text/plain".into()), ("content-length".into(), "4".into())],
            content_type: Some("text/plain".into()),
            body: Some("a \"q\u{fc}\n".into()),
            ..entry(1, 400)
        };
        let entries = [full, entry(2, 200), entry(3, 202)];
        assert_eq!(String::from_utf8(encode(&entries)).expect("text"), GOLDEN_OURS.trim_end());
        assert_eq!(of(&entries), Ok(Report { settled: entries.into(), stopped: None }));
        assert_eq!(encode(&[]), b"[]");
    }

    #[test]
    fn a_shorter_answer_settles_what_stands_before_the_one_that_was_not_tolerable() {
        for status in [408, 429, 500, 501, 503, 599] {
            let report = of(&[entry(1, 200), entry(2, status)]).expect("reads");
            assert_eq!((report.settled, report.stopped), (vec![entry(1, 200)], Some(entry(2, status))));
            let report = of(&[entry(1, 200), entry(2, 404), entry(3, status)]).expect("whole, but the last");
            assert_eq!(report.settled.len(), 2);
            let report = of(&[entry(1, status)]).expect("reads");
            assert_eq!((report.settled, report.stopped), (vec![], Some(entry(1, status))));
        }
        for status in [100, 200, 301, 400, 404, 410, 600, 999] {
            assert!(is_tolerable(status), "{status}");
        }
    }

    #[test]
    fn statuses_mean_to_a_lane_what_they_mean_at_the_far_side_of_v2() {
        let with_body = |number, body: &str| Entry { body: Some(body.to_owned()), ..entry(number, 400) };
        let duplicate = r#"{"error":"unknown","message":""}"#;
        let report = of(&[entry(1, 202), with_body(2, duplicate), entry(3, 404)]).expect("reads");
        let finals = |profile| -> Vec<_> {
            report.outcomes(profile).finals.into_iter().map(|answer| (answer.outcome, answer.status)).collect()
        };
        let expected = [(Final::Delivered, 202), (Final::Duplicate, 400), (Final::Rejected, 404)];
        assert_eq!(finals(Profile::Lemmy), expected);
        assert_eq!(finals(Profile::Generic)[1], (Final::Rejected, 400));
        let kept = report.outcomes(Profile::Generic).finals[1].body.clone();
        assert_eq!(kept.as_deref(), Some(duplicate), "for the copy that is parked");

        let without_its_reason = of(&[entry(1, 200), entry(2, 400), entry(3, 200)]).expect("reads");
        let finals = without_its_reason.outcomes(Profile::Lemmy).finals;
        assert_eq!((finals[1].outcome, finals.len()), (Final::Rejected, 3));

        let stopped = Entry { headers: vec![("Retry-After".into(), "7".into())], ..entry(2, 503) };
        let outcomes = of(&[entry(1, 200), stopped]).expect("reads").outcomes(Profile::Lemmy);
        let again = Again { status: 503, retry_after_s: Some(7), cause: "the instance answered 503".into() };
        assert_eq!((outcomes.finals.len(), outcomes.again), (1, Some(again)));
    }

    #[test]
    fn what_the_existing_receiver_passes_over_is_tried_again() {
        let away = r#"{"error":"unknown","message":"Timeout occurred while waiting for a slot to become available"}"#;
        for (status, body) in [(301, ""), (400, away)] {
            let second = Entry { body: Some(body.to_owned()), ..entry(2, status) };
            let outcomes = of(&[entry(1, 200), second, entry(3, 200)]).expect("reads").outcomes(Profile::Lemmy);
            assert_eq!(outcomes.finals.len(), 1, "{status}");
            assert_eq!(outcomes.again.map(|again| again.status), Some(status));
        }
    }

    #[test]
    fn an_answer_that_ends_early_without_a_reason_settles_nothing() {
        for entries in [&[][..], &[entry(1, 200)], &[entry(1, 200), entry(2, 400)]] {
            assert_eq!(of(entries), Err(AnswerError::TooShort { found: entries.len(), asked: 3 }));
        }
        assert_eq!(read(b"[]", [].into_iter()), Ok(Report { settled: vec![], stopped: None }), "of nothing");
    }

    #[test]
    fn an_answer_that_is_too_long_goes_on_or_is_about_others_settles_nothing() {
        let four = [entry(1, 200), entry(2, 200), entry(3, 200), entry(3, 200)];
        assert_eq!(of(&four), Err(AnswerError::TooLong { asked: 3 }));
        assert_eq!(of(&[entry(1, 503), entry(2, 200)]), Err(AnswerError::GoesOn { entry: 1, status: 503 }));
        let (found, expected) = (ASKED[1].to_owned(), ASKED[0].to_owned());
        assert_eq!(of(&[entry(2, 503)]), Err(AnswerError::OtherActivity { entry: 1, found, expected }));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named_with_its_field() {
        let whole = String::from_utf8(encode(&[entry(1, 503)])).expect("text");
        let broken = |from: &str, to: &str| {
            let json = whole.replace(from, to);
            assert_ne!(json, whole, "{from}");
            match read(json.as_bytes(), ASKED.into_iter()).expect_err(to) {
                AnswerError::Malformed { entry: 1, field, .. } => field,
                other => panic!("{to}: {other}"),
            }
        };
        for status in
            ["-1", "0", "99", "1000", "65736", "99999999999999999999", "503.0", "5.03e2", "\"503\"", "null", "true"]
        {
            assert_eq!(broken("503", status), "status", "{status}");
        }
        assert_eq!(broken(r#""status":503,"#, ""), "status");
        assert_eq!(broken(r#""content_type":null"#, r#""content_type":7"#), "content_type");
        assert_eq!(broken(r#""body":null"#, r#""body":{}"#), "body");
        assert_eq!(broken(r#""headers":[]"#, r#""headers":[["a"]]"#), "headers");
        assert_eq!(broken("2024", "year"), "time");
        assert_eq!(broken(r#""activity_id":"#, r#""id":"#), "activity_id");
        assert_eq!(broken(r#","body":null}"#, ""), "it");
        for text in ["", "{}", "null", "<html>", r#"{"detail":"x"}"#, "[null]"] {
            assert!(read(text.as_bytes(), ASKED.into_iter()).is_err(), "{text}");
        }
        let without = whole.replace(r#","content_type":null,"body":null"#, "");
        assert!(read(without.as_bytes(), ASKED.into_iter()).is_ok(), "what may be null may be absent");
    }

    #[test]
    fn no_byte_string_makes_it_panic() {
        let whole = GOLDEN.as_bytes();
        for at in 0..whole.len() {
            drop(read(&whole[..at], ASKED.into_iter()));
            for byte in [b'"', b'[', b'{', b'\\', b'9', 0x00, 0xff] {
                let mut altered = whole.to_vec();
                altered[at] = byte;
                drop(read(&altered, ASKED.into_iter()));
            }
        }
    }
}
