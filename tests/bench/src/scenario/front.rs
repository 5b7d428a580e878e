//! The front door against a bare publisher: the same messages, the same broker, the same disk, slice by slice.
//!
//! What the front stored is read back, and published again by async-nats alone, to the same subjects, with the same
//! headers (but for a new message id, or it would count as a repeat) and as many in flight.

use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer};
use bytes::Bytes;
use fedstream_tests::eventually::eventually;
use futures::TryStreamExt;
use tokio::task::JoinSet;

use crate::activity::Mix;
use crate::flow;
use crate::request::prepare;
use crate::results::Front;
use crate::rig::{Rig, Settings};
use crate::sender::Pace;
use crate::stats::{Figures, Latency};
use crate::usage::{Processor, Spent};

/// A message as the front stored it.
struct Stored {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

/// So many in flight, each from a source of its own, in pairs of slices.
///
/// # Errors
/// A part fails, or a request is refused.
pub async fn run(in_flight: usize, each: usize, repetitions: usize, settings: &Settings) -> anyhow::Result<Front> {
    let mut rig = Rig::start(in_flight, settings).await?;
    rig.hold().await?;
    let requests = in_flight * each;
    let (mut front, mut bare) = (Figures::default(), Figures::default());
    let (mut front_times, mut bare_times, mut spent) = (Vec::new(), Vec::new(), Spent::default());
    // One slice before: files are made, connections stand.
    for repetition in 0..=repetitions {
        let loads = prepare(&rig.keys, in_flight, each, Mix::Usual)?;
        let before = Processor::now(&rig.parts());
        let begin = Instant::now();
        let sent = flow::send_all(&loads, rig.front, |_| Pace::Full, None).await?;
        let took = begin.elapsed();
        let slice = Processor::now(&rig.parts()).since(&before);
        let accepted = sent.iter().filter(|sent| sent.submission.accepted.is_some()).count();
        anyhow::ensure!(accepted == requests, "{accepted} of {requests} were accepted\n{}", rig.log_tails());

        let stored = read_back(&rig, requests).await?;
        let begin = Instant::now();
        let acknowledged = publish(&rig, stored, in_flight).await?;
        let bare_took = begin.elapsed();
        purge(&rig).await?;
        if repetition == 0 {
            continue;
        }
        front.0.push(requests as f64 / took.as_secs_f64());
        bare.0.push(requests as f64 / bare_took.as_secs_f64());
        front_times.extend(sent.iter().map(|sent| sent.answered_after));
        bare_times.extend(acknowledged);
        spent = slice;
        eprintln!("  front, {in_flight} in flight: {:.0}/s, bare {:.0}/s", front.median(), bare.median());
    }
    Ok(Front {
        in_flight,
        requests,
        front,
        bare,
        front_latency: Latency::of(front_times),
        bare_latency: Latency::of(bare_times),
        spent,
    })
}

/// What lies in the stream, in order; and empties it.
async fn read_back(rig: &Rig, count: usize) -> anyhow::Result<Vec<Stored>> {
    let stream = rig.broker.jetstream().await?.get_stream("FED_INBOX").await?;
    let config = consumer::pull::OrderedConfig { deliver_policy: consumer::DeliverPolicy::All, ..Default::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let message = messages.try_next().await?.context("the stream holds less than was accepted")?;
        all.push(Stored {
            subject: message.subject.to_string(),
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        });
    }
    purge(rig).await?;
    Ok(all)
}

async fn purge(rig: &Rig) -> anyhow::Result<()> {
    let stream = rig.broker.jetstream().await?.get_stream("FED_INBOX").await?;
    stream.purge().await?;
    // A purge is done when it is answered; its blocks go away behind it.
    let empty = async || (stream.get_info().await.ok()?.state.messages == 0).then_some(());
    Ok(eventually("the stream is empty", Duration::from_secs(10), empty).await?)
}

/// One at a time on each subject; says how long each acknowledgement took.
async fn publish(rig: &Rig, stored: Vec<Stored>, in_flight: usize) -> anyhow::Result<Vec<Duration>> {
    let jetstream = rig.broker.jetstream().await?;
    let mut shares: Vec<Vec<Stored>> = (0..in_flight).map(|_| Vec::new()).collect();
    let mut subjects: Vec<String> = Vec::new();
    for message in stored {
        let number = subjects.iter().position(|subject| *subject == message.subject).unwrap_or_else(|| {
            subjects.push(message.subject.clone());
            subjects.len() - 1
        });
        shares[number % in_flight].push(message);
    }
    let mut publishing = JoinSet::new();
    for share in shares {
        publishing.spawn(one_after_the_other(jetstream.clone(), share));
    }
    let mut times = Vec::new();
    while let Some(share) = publishing.join_next().await {
        times.extend(share??);
    }
    Ok(times)
}

async fn one_after_the_other(jetstream: jetstream::Context, share: Vec<Stored>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(share.len());
    for mut message in share {
        rename(&mut message.headers);
        let begin = Instant::now();
        let ack = jetstream.publish_with_headers(message.subject, message.headers, message.payload).await?.await?;
        anyhow::ensure!(!ack.duplicate, "taken for a repeat");
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// A message id of its own, as long as the front's.
#[expect(clippy::disallowed_methods, reason = "it panics on line breaks, and hex has none")]
fn rename(headers: &mut HeaderMap) {
    headers.insert("Nats-Msg-Id", format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..)));
}
