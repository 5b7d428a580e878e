//! What an instance's refusals become, by the profile of the batch or of the receiver.

mod support;

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use fedstream_lane::{Answer, Final, Profile, Seq};
use fedstream_wire::v2::{Batch, Closing, Line};
use support::{DONE, Instance, Receiver, batch};

const KNOWN: &str = r#"{"error":"unknown","message":""}"#;
const EXPIRED: &str = r#"{"error":"unknown","message":"Http Signature is expired, checked Date header"}"#;
const TIMEOUT: &str = r#"{"error":"inbox_timeout"}"#;
const REFUSED: &str = r#"{"error":"cannot_receive_page"}"#;
const AWAY: &str = r#"{"error":"unknown","message":"Error occurred while creating a new object: not currently accepting connections"}"#;

fn with(profile: Option<Profile>, mut batch: Batch) -> Batch {
    batch.header.profile = profile;
    batch
}

fn refused(seq: u64, outcome: Final, status: u16, body: &str) -> Line {
    let body = (outcome != Final::Duplicate).then(|| body.into());
    Line::Outcome(Seq(seq), Answer { outcome, status, body })
}

#[tokio::test]
async fn a_lemmys_refusals_are_read_by_their_bodies() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    let post = with(Some(Profile::Lemmy), batch(Some(gate), 1, 0, &[1, 2, 3, 4, 5]));
    let mut reply = receiver.post(&post).await?;
    for body in [KNOWN, EXPIRED, TIMEOUT, REFUSED, AWAY] {
        instance.asked().await?.answer_with(400, &[("retry-after", "9")], body);
    }
    let lines = reply.lines().await?;
    let expected = [
        refused(1, Final::Duplicate, 400, KNOWN),
        refused(2, Final::Expired, 400, EXPIRED),
        refused(3, Final::Unprocessed, 400, TIMEOUT),
        refused(4, Final::Rejected, 400, REFUSED),
    ];
    assert_eq!(lines[..4], expected);
    let [.., Line::End(Closing::Retry { seq: Seq(5), status: Some(400), retry_after_s: Some(9), cause, .. })] =
        &lines[..]
    else {
        panic!("{lines:?}")
    };
    assert!(cause.contains("database"), "{cause}");

    // A repeat hears the same, and the instance nothing.
    let again = with(Some(Profile::Lemmy), batch(Some(gate), 1, 0, &[1, 2, 3, 4]));
    assert_eq!(receiver.post(&again).await?.lines().await?[..4], expected);
    let lane = receiver.lane(|_| true).await?;
    assert_eq!((&lane["profile"], &lane["last_outcome"]["outcome"]), (&"lemmy".into(), &"retry".into()));
    assert!(instance.is_idle() && instance.is_unprobed());
    Ok(())
}

#[tokio::test]
async fn a_reason_is_read_in_every_coding_and_one_that_cannot_be_is_named() -> Result<()> {
    // KNOWN, as node's zlib compresses it.
    const BR: &str = "Gx8AAIzUYs0Z7pQie33FotOBSDJJJ4qyylttBFwD";
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, KNOWN.as_bytes())?;
        encoder.finish()?
    };
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_PROFILE", "lemmy")]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2, 3])).await?;
    for (coding, body) in [("br", BASE64_STANDARD.decode(BR)?), ("deflate", zlib), ("exotic", b"?".to_vec())] {
        instance.asked().await?.answer_with(400, &[("content-encoding", coding)], body);
    }
    let unread = "(the answer is compressed as \"exotic\", which is not read here)";
    let expected = [
        refused(1, Final::Duplicate, 400, KNOWN),
        refused(2, Final::Duplicate, 400, KNOWN),
        refused(3, Final::Rejected, 400, unread),
        DONE,
    ];
    assert_eq!(reply.lines().await?, expected);
    Ok(())
}

#[tokio::test]
async fn the_receivers_profile_is_for_batches_that_name_none() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_PROFILE", "lemmy")]).await?;
    let gate = receiver.gate().await?;
    let cases =
        [(None, Final::Duplicate), (Some(Profile::Generic), Final::Rejected), (Some(Profile::Lemmy), Final::Duplicate)];
    for (seq, (profile, outcome)) in (1..).zip(cases) {
        let mut reply = receiver.post(&with(profile, batch(Some(gate), 1, seq - 1, &[seq]))).await?;
        instance.asked().await?.answer_with(400, &[], KNOWN);
        assert_eq!(reply.lines().await?, [refused(seq, outcome, 400, KNOWN), DONE], "{profile:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_mastodons_old_signature_is_expired() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_PROFILE", "mastodon")]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2])).await?;
    let (expired, unsigned) =
        (r#"{"error":"Signed request date outside acceptable time window"}"#, r#"{"error":"Request not signed"}"#);
    instance.asked().await?.answer_with(401, &[], expired);
    instance.asked().await?.answer_with(401, &[], unsigned);
    let lines = [refused(1, Final::Expired, 401, expired), refused(2, Final::Rejected, 401, unsigned), DONE];
    assert_eq!(reply.lines().await?, lines);
    Ok(())
}
