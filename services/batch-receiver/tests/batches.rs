//! Batches that are let in: what goes to the instance, in which order, and what the sender hears of it.

mod support;

use anyhow::Result;
use fedstream_lane::{Answer, Epoch, Final, Seq};
use fedstream_wire::encoding::Encoding;
use fedstream_wire::v2::{Closing, Line};
use support::{DONE, Instance, Receiver, batch, delivered, outcome, soon};

#[tokio::test]
async fn outcomes_are_streamed_as_they_become_known() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;

    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[3, 7])).await?;
    assert_eq!(reply.status, 200, "at once, before the instance said anything");
    assert_eq!(reply.gate()?, gate);
    for (name, value) in
        [("content-type", "application/x-ndjson"), ("x-accel-buffering", "no"), ("cache-control", "no-transform")]
    {
        assert_eq!(reply.headers[name], value);
    }
    instance.takes(3).await?;
    assert_eq!(reply.line().await?, Some(delivered(3)), "while the second is not even answered");
    instance.takes(7).await?;
    assert_eq!(reply.lines().await?, [delivered(7), DONE]);

    let (status, page) = receiver.page("/lanes").await?;
    assert_eq!(
        (status.as_u16(), &page["lanes"][0]["lane"], &page["lanes"][0]["last"]),
        (200, &"b.example/a.example".into(), &7.into())
    );
    assert_eq!(receiver.page("/readyz").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn a_batch_for_another_life_of_the_receiver_is_told_the_current_one() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let reply = receiver.post(&batch(None, 1, 0, &[1])).await?;
    let (status, gate) = (reply.status, reply.gate()?);
    let problem = reply.problem().await?;
    assert_eq!(status, 409);
    assert_eq!(problem["type"], "urn:fedstream:problem:new-gate");
    assert_eq!(problem["gate"], gate.to_string());
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn compressed_batches_are_read() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    for (encoding, prev, seq) in [(Encoding::Zstd, 0, 1), (Encoding::Gzip, 1, 2)] {
        let mut batch = batch(Some(gate), 1, prev, &[seq]);
        let (used, body) = encoding.compress(batch.encode());
        if used == Encoding::Identity {
            batch.items[0].activity_id = "https://a.example/".repeat(20);
        }
        let (used, body) = if used == encoding { (used, body) } else { encoding.compress(batch.encode()) };
        let mut request = receiver.request(body);
        request.headers_mut().insert("content-encoding", used.name().unwrap_or("identity").parse()?);
        assert_eq!(used, encoding);
        let mut reply = receiver.send(request).await?;
        instance.takes(seq).await?;
        assert_eq!(reply.lines().await?, [delivered(seq), DONE]);
    }
    Ok(())
}

#[tokio::test]
async fn a_retry_ends_the_batch_and_nothing_after_it_is_begun() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;

    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2, 3])).await?;
    instance.takes(1).await?;
    instance.asked().await?.answer_with(503, &[("retry-after", "7")], "down");
    let cause = "the instance answered 503".to_owned();
    let retry = Closing::Retry { seq: Seq(2), status: Some(503), retry_after_s: Some(7), alive: false, cause };
    assert_eq!(reply.lines().await?, [delivered(1), Line::End(retry)]);
    assert!(instance.is_idle());

    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2, 3])).await?;
    instance.takes(2).await?;
    instance.takes(3).await?;
    assert_eq!(reply.lines().await?, [outcome(1, Final::Duplicate, 202), delivered(2), delivered(3), DONE]);
    Ok(())
}

#[tokio::test]
async fn a_rejection_is_final_and_carries_what_the_instance_said() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    let rejected =
        Line::Outcome(Seq(1), Answer { outcome: Final::Rejected, status: 400, body: Some("unknown actor".into()) });

    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2])).await?;
    instance.asked().await?.answer_with(400, &[], "unknown actor");
    instance.takes(2).await?;
    assert_eq!(reply.lines().await?, [rejected.clone(), delivered(2), DONE]);
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    assert_eq!(reply.lines().await?, [rejected, DONE], "also the second time");
    Ok(())
}

#[tokio::test]
async fn an_item_whose_connection_closed_is_finished_and_never_repeated() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;

    let reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2])).await?;
    let asked = instance.asked().await?;
    drop(reply);
    let mut again = receiver.post(&batch(Some(gate), 1, 0, &[1, 2])).await?;
    asked.answer(202);
    instance.takes(2).await?;
    // Had the receiver not heard of the closed connection yet, the second item came from the first batch.
    let lines = again.lines().await?;
    assert_eq!((&lines[0], &lines[2]), (&outcome(1, Final::Duplicate, 202), &DONE));
    assert!([delivered(2), outcome(2, Final::Duplicate, 202)].contains(&lines[1]), "{lines:?}");
    assert!(instance.is_idle());
    assert_eq!(instance.most_at_once(), 1);
    Ok(())
}

#[tokio::test]
async fn two_posts_of_one_lane_have_one_item_at_the_instance() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;

    // The second one first: it waits for the first.
    let mut second = receiver.post(&batch(Some(gate), 1, 4, &[6, 9])).await?;
    let mut first = receiver.post(&batch(Some(gate), 1, 0, &[1, 4])).await?;
    for seq in [1, 4, 6, 9] {
        instance.takes(seq).await?;
    }
    assert_eq!(first.lines().await?, [delivered(1), delivered(4), DONE]);
    assert_eq!(second.lines().await?, [delivered(6), delivered(9), DONE]);
    assert_eq!(instance.most_at_once(), 1);
    Ok(())
}

#[tokio::test]
async fn lanes_do_not_wait_for_each_other() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    let mut slow = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let held = instance.asked().await?;
    let mut other = batch(Some(gate), 1, 0, &[2]);
    other.header.lane.source = "c.example".parse()?;
    let mut quick = receiver.post(&other).await?;
    instance.takes(2).await?;
    assert_eq!(quick.lines().await?, [delivered(2), DONE]);
    held.answer(202);
    assert_eq!(slow.lines().await?, [delivered(1), DONE]);
    Ok(())
}

#[tokio::test]
async fn an_earlier_batch_that_does_not_come_is_a_gap() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_WAIT_MAX", "50ms")]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 4, &[6])).await?;
    assert_eq!(reply.lines().await?, [Line::End(Closing::Gap { last: Seq(0) })]);
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn a_replaced_owner_is_told_and_begins_nothing_more() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;

    let mut old = receiver.post(&batch(Some(gate), 5, 0, &[1, 2])).await?;
    let asked = instance.asked().await?;
    let mut new = receiver.post(&batch(Some(gate), 6, 0, &[1, 2])).await?;
    asked.answer(202);
    assert_eq!(old.lines().await?, [delivered(1), Line::End(Closing::StaleEpoch { known: Epoch(6) })]);
    instance.takes(2).await?;
    assert_eq!(new.lines().await?, [outcome(1, Final::Duplicate, 202), delivered(2), DONE]);

    let late = receiver.post(&batch(Some(gate), 5, 0, &[3])).await?;
    assert_eq!(late.status, 409);
    let problem = late.problem().await?;
    assert_eq!((&problem["type"], &problem["epoch"]), (&"urn:fedstream:problem:stale-epoch".into(), &6.into()));

    let mut other = batch(Some(gate), 7, 0, &[3]);
    other.header.origin.site = "far".into();
    let other = receiver.post(&other).await?;
    assert_eq!(other.status, 409);
    assert_eq!(other.problem().await?["type"], "urn:fedstream:problem:other-origin");
    Ok(())
}

#[tokio::test]
async fn a_slow_instance_does_not_make_the_sender_think_that_nobody_is_there() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_SILENCE", "20ms")]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let asked = instance.asked().await?;
    for _ in 0..3 {
        assert_eq!(reply.line().await?, Some(Line::Silence));
    }
    asked.answer(202);
    assert_eq!(reply.lines().await?, [delivered(1), DONE]);
    Ok(())
}

#[tokio::test]
async fn an_instance_that_does_not_answer_in_time_or_is_down_is_a_retry() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_DELIVERY_TIMEOUT", "100ms")]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let _held = instance.asked().await?;
    let lines = reply.lines().await?;
    assert!(
        matches!(&lines[..], [Line::End(Closing::Retry { seq: Seq(1), status: None, cause, .. })] if cause.contains("within 100ms")),
        "{lines:?}"
    );

    let (listening, nobody) = support::listener().await?;
    drop(listening);
    let receiver = Receiver::start(nobody, &[]).await?;
    let gate = receiver.gate().await?;
    let lines = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?.lines().await?;
    assert!(
        matches!(&lines[..], [Line::End(Closing::Retry { seq: Seq(1), status: None, cause, .. })] if cause.starts_with("no connection")),
        "{lines:?}"
    );
    Ok(())
}

#[tokio::test]
async fn shutdown_finishes_the_item_at_the_instance_and_begins_no_other() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    let mut reply = receiver.post(&batch(Some(gate), 1, 0, &[1, 2])).await?;
    // This one waits for its turn: it is closed at once.
    let mut waiting = receiver.post(&batch(Some(gate), 1, 1, &[2])).await?;
    let abandoned = receiver.post(&batch(Some(gate), 1, 2, &[3])).await?;
    drop(abandoned);
    let asked = instance.asked().await?;
    receiver.stop.cancel();
    let closing = Line::End(Closing::Overloaded { retry_after_s: Some(1) });
    assert_eq!(waiting.lines().await?, std::slice::from_ref(&closing));
    assert!(!receiver.task.is_finished(), "an activity is still at the instance");
    asked.answer(202);
    assert_eq!(reply.lines().await?, [delivered(1), closing]);
    receiver.stopped().await?;
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn shutdown_waits_for_an_item_whose_sender_has_gone() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    let reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let asked = instance.asked().await?;
    drop(reply);
    receiver.stop.cancel();
    while tokio::net::TcpStream::connect(receiver.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!receiver.task.is_finished());
    asked.answer(202);
    receiver.stopped().await
}

#[tokio::test]
async fn shutdown_ends_after_the_grace_period_whatever_the_instance_does() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_SHUTDOWN_GRACE", "100ms")]).await?;
    let gate = receiver.gate().await?;
    let _reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let _held = instance.asked().await?;
    receiver.stop.cancel();
    soon("the end", receiver.stopped()).await?
}
