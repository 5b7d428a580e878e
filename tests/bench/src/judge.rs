//! Every run ends here: what the senders had accepted against what the instance took, by the harness's own checker.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use fedstream_tests::check::Report;
use fedstream_tests::directory::Directory;
use fedstream_tests::instance::Seen;
use fedstream_tests::message::{Message, from_latin1};
use fedstream_tests::verify;

use crate::instance::Record;
use crate::sender::Sent;

/// Nothing lost, repeated, altered, reordered, overlapping or made up, and each signature still good.
///
/// # Errors
/// Anything else, with the report.
pub fn clean(sent: &[Sent], records: &[Record], keys: &Directory) -> anyhow::Result<()> {
    let seen = read(records, keys)?;
    let submissions: Vec<_> = sent.iter().map(|sent| sent.submission.clone()).collect();
    let report = Report::of(&submissions, &seen);
    ensure!(report.is_clean() && report.delivered == sent.len(), "not as promised: {} were sent\n{report}", sent.len());
    Ok(())
}

/// From when each activity was due at its sender until the instance was done with it.
#[must_use]
pub fn latencies(sent: &[Sent], records: &[Record]) -> Vec<Duration> {
    // One lane, and `clean` has seen that the order is the same at both ends.
    sent.iter().zip(records).map(|(sent, record)| record.ended.saturating_duration_since(sent.due)).collect()
}

fn read(records: &[Record], keys: &Directory) -> anyhow::Result<Vec<Seen>> {
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let share = records.len().div_ceil(workers).max(1);
    thread::scope(|scope| {
        let readers: Vec<_> = records
            .chunks(share)
            .map(|records| {
                scope.spawn(|| records.iter().map(|record| seen(record, keys)).collect::<anyhow::Result<Vec<_>>>())
            })
            .collect();
        let mut all = Vec::with_capacity(records.len());
        for reader in readers {
            all.extend(reader.join().expect("reading never panics")?);
        }
        Ok(all)
    })
}

fn seen(record: &Record, keys: &Directory) -> anyhow::Result<Seen> {
    let message = message(record)?;
    let scheme = message.header("x-forwarded-proto").unwrap_or_else(|| "https".to_owned());
    let source = verify::source_of(&message).unwrap_or_default();
    Ok(Seen {
        id: message.activity_id().unwrap_or_default(),
        lane: format!("{}/{source}", message.header("host").unwrap_or_default()),
        arrived: record.arrived,
        ended: Some(record.ended),
        status: Some(200),
        answered: true,
        signature: verify::verify(&message, &scheme, keys, SystemTime::now()).map(|verified| verified.kind),
        overlaps: record.overlaps,
        message,
    })
}

fn message(record: &Record) -> anyhow::Result<Message> {
    let head = from_latin1(&record.wire[..record.head]);
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let start = lines.next().unwrap_or_default();
    let mut words = start.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        anyhow::bail!("no request line: {start:?}");
    };
    let headers = lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    Ok(Message {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.collect(),
        body: record.wire[record.head..].to_vec().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fedstream_tests::ledger::Submission;

    use super::*;
    use crate::activity::Mix;
    use crate::request::{Load, prepare};

    fn ends(keys: &Directory) -> (Load, Vec<Sent>, Vec<Record>) {
        let load = prepare(keys, 1, 3, Mix::Usual).unwrap().remove(0);
        let start = Instant::now();
        let at = |ms: usize| start + Duration::from_millis(ms as u64);
        let sent = load.requests.iter().enumerate().map(|(n, request)| Sent {
            submission: Submission {
                id: request.id.clone(),
                lane: load.lane(),
                body_sha256: String::new(),
                fingerprints: vec![request.fingerprint.clone()],
                first_sent: at(2 * n),
                accepted: Some(at(2 * n + 1)),
                last_status: 204,
            },
            due: at(2 * n),
            answered_after: Duration::from_millis(1),
        });
        let records = load.requests.iter().enumerate().map(|(n, request)| Record {
            wire: request.wire.to_vec(),
            head: request.wire.len() - request.body.len(),
            arrived: at(100 + n),
            ended: at(101 + n),
            overlaps: false,
        });
        let (sent, records) = (sent.collect(), records.collect());
        (load, sent, records)
    }

    #[test]
    fn what_arrives_as_sent_is_clean() {
        let keys = Directory::default();
        let (_, sent, records) = ends(&keys);
        clean(&sent, &records, &keys).unwrap();
        assert_eq!(latencies(&sent, &records)[1], Duration::from_millis(100));
    }

    #[test]
    fn a_lost_a_changed_and_a_swapped_one_fail_the_run() {
        let keys = Directory::default();
        let (_, sent, mut records) = ends(&keys);
        records.pop();
        assert!(clean(&sent, &records, &keys).unwrap_err().to_string().contains("lost: 1"));
        let (_, sent, mut records) = ends(&keys);
        let last = records[1].wire.len() - 1;
        records[1].wire[last] = b' ';
        assert!(clean(&sent, &records, &keys).is_err());
        let (_, sent, mut records) = ends(&keys);
        let (a, b) = (records[0].ended, records[1].ended);
        (records[0].ended, records[1].ended) = (b, a);
        assert!(clean(&sent, &records, &keys).unwrap_err().to_string().contains("out of order: 1"));
    }
}
