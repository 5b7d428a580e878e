//! An instance that fails on one activity: is it known to answer others? And what is asked to find out.

mod support;

use std::time::Duration;

use anyhow::{Result, bail};
use fedstream_lane::GateId;
use fedstream_wire::v2::{Batch, Closing, Line};
use support::{DONE, Instance, Receiver, batch, delivered};
use tokio::time::timeout;

/// Posts a batch of one whose activity is answered so; what the closing line says of the instance.
async fn attempt(receiver: &Receiver, instance: &mut Instance, batch: &Batch, status: u16) -> Result<bool> {
    let mut reply = receiver.post(batch).await?;
    instance.asked().await?.answer(status);
    match &reply.lines().await?[..] {
        [Line::End(Closing::Retry { status: Some(found), alive, .. })] if *found == status => Ok(*alive),
        lines => bail!("{lines:?}"),
    }
}

fn one(gate: GateId, seq: u64) -> Batch {
    batch(Some(gate), 1, 0, &[seq])
}

fn on_another_lane(mut batch: Batch) -> Batch {
    batch.header.lane.source = "c.example".parse().expect("name");
    batch
}

#[tokio::test]
async fn an_instance_that_answers_the_probe_between_two_attempts_is_alive() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    assert!(!attempt(&receiver, &mut instance, &one(gate, 1), 500).await?, "the first attempt has none before it");
    let probe = instance.probed().await?;
    assert_eq!((probe.target.as_str(), &probe.headers["host"]), ("/nodeinfo/2.1", &"b.example".parse()?));
    probe.answer(200);
    let lane = receiver.lane(|lane| lane["faulty_head"]["alive"] == true).await?;
    assert_eq!((&lane["faulty_head"]["seq"], &lane["faulty_head"]["attempts"]), (&1.into(), &1.into()));
    assert!(attempt(&receiver, &mut instance, &one(gate, 1), 501).await?);
    assert_eq!(receiver.lane(|_| true).await?["faulty_head"]["attempts"], 2);

    let mut reply = receiver.post(&one(gate, 1)).await?;
    instance.takes(1).await?;
    assert_eq!(reply.lines().await?, [delivered(1), DONE]);
    assert!(receiver.lane(|_| true).await?["faulty_head"].is_null());
    Ok(())
}

#[tokio::test]
async fn an_outage_is_never_the_activitys_fault() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    // Its own lane's outcomes, before and after, are no evidence either.
    let mut reply = receiver.post(&one(gate, 1)).await?;
    instance.takes(1).await?;
    reply.lines().await?;
    let second = batch(Some(gate), 1, 1, &[2]);
    assert!(!attempt(&receiver, &mut instance, &second, 500).await?);
    instance.probed().await?.answer(503);
    for status in [500, 502, 500, 503, 500] {
        assert!(!attempt(&receiver, &mut instance, &second, status).await?, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn a_final_outcome_on_another_lane_is_evidence_without_any_probe() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_DESTINATION_PROBE", "off")]).await?;
    let gate = receiver.gate().await?;
    assert!(!attempt(&receiver, &mut instance, &one(gate, 1), 500).await?);
    assert!(!attempt(&receiver, &mut instance, &one(gate, 1), 500).await?);
    let mut reply = receiver.post(&on_another_lane(one(gate, 7))).await?;
    instance.takes(7).await?;
    reply.lines().await?;
    assert!(attempt(&receiver, &mut instance, &one(gate, 1), 500).await?);
    assert!(!attempt(&receiver, &mut instance, &one(gate, 1), 500).await?, "nothing since the attempt before");
    assert!(instance.is_unprobed());
    Ok(())
}

#[tokio::test]
async fn a_probe_that_hangs_delays_neither_the_answer_nor_the_shutdown() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    assert!(!attempt(&receiver, &mut instance, &one(gate, 1), 500).await?);
    let _hanging = instance.probed().await?;
    for (lane, status) in [(one(gate, 1), 500), (on_another_lane(one(gate, 7)), 500)] {
        assert!(!attempt(&receiver, &mut instance, &lane, status).await?);
    }
    assert!(instance.is_unprobed(), "one at a time");
    receiver.stop.cancel();
    // Less than what a probe is given.
    timeout(Duration::from_secs(4), receiver.stopped()).await?
}

#[tokio::test]
async fn only_a_fault_is_followed_by_a_probe() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[]).await?;
    let gate = receiver.gate().await?;
    for status in [429, 502, 503, 504] {
        assert!(!attempt(&receiver, &mut instance, &one(gate, 1), status).await?, "{status}");
    }
    assert!(receiver.lane(|_| true).await?["faulty_head"].is_null());
    assert!(instance.is_unprobed());
    Ok(())
}
