//! Several batches of a lane at once: they wait for each other, within bounds, and for nobody who will not come.

mod support;

use anyhow::Result;
use fedstream_lane::{Epoch, Final, Seq};
use fedstream_wire::v2::{Closing, Line};
use support::{DONE, Instance, Receiver, batch, delivered, outcome};

/// Longer than any test: whoever waits this long was not woken.
const FOR_EVER: (&str, &str) = ("FED_WAIT_MAX", "1h");

#[tokio::test]
async fn batches_that_come_in_reversed_order_are_delivered_in_order() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[FOR_EVER]).await?;
    let gate = receiver.gate().await?;
    let mut third = receiver.post(&batch(Some(gate), 1, 9, &[11, 12])).await?;
    let mut second = receiver.post(&batch(Some(gate), 1, 4, &[6, 9])).await?;
    receiver.lane(|lane| lane["waiting_batches"] == 2).await?;
    let mut first = receiver.post(&batch(Some(gate), 1, 0, &[1, 4])).await?;
    for seq in [1, 4, 6, 9, 11, 12] {
        instance.takes(seq).await?;
    }
    assert_eq!(first.lines().await?, [delivered(1), delivered(4), DONE]);
    assert_eq!(second.lines().await?, [delivered(6), delivered(9), DONE]);
    assert_eq!(third.lines().await?, [delivered(11), delivered(12), DONE]);
    assert_eq!(instance.most_at_once(), 1);
    receiver.lane(|lane| lane["waiting_batches"] == 0).await.map(drop)
}

#[tokio::test]
async fn a_batch_whose_predecessor_never_comes_answers_gap_in_time_and_frees_its_room() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_WAIT_MAX", "1s"), ("FED_BATCHES_MAX", "1")]).await?;
    let gate = receiver.gate().await?;
    let mut waiting = receiver.post(&batch(Some(gate), 1, 4, &[6])).await?;
    let refused = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    assert_eq!(refused.status, 503, "the waiting batch has the room");
    assert_eq!(waiting.lines().await?, [Line::End(Closing::Gap { last: Seq(0) })]);
    let mut first = support::soon("room", async {
        loop {
            let reply = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
            if reply.status == 200 {
                return anyhow::Ok(reply);
            }
        }
    })
    .await??;
    instance.takes(1).await?;
    assert_eq!(first.lines().await?, [delivered(1), DONE]);
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn a_waiting_batch_of_an_old_epoch_is_stale_as_soon_as_a_new_one_comes() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[FOR_EVER]).await?;
    let gate = receiver.gate().await?;
    let mut first = receiver.post(&batch(Some(gate), 5, 0, &[1])).await?;
    let asked = instance.asked().await?;
    let mut for_its_turn = receiver.post(&batch(Some(gate), 5, 0, &[1])).await?;
    let mut for_an_earlier_one = receiver.post(&batch(Some(gate), 5, 7, &[8])).await?;
    receiver.lane(|lane| lane["waiting_batches"] == 2).await?;

    let mut new = receiver.post(&batch(Some(gate), 6, 0, &[1])).await?;
    let stale = [Line::End(Closing::StaleEpoch { known: Epoch(6) })];
    assert_eq!(for_its_turn.lines().await?, stale, "with an item still at the instance");
    assert_eq!(for_an_earlier_one.lines().await?, stale);
    asked.answer(202);
    assert_eq!(first.lines().await?, [delivered(1), DONE]);
    assert_eq!(new.lines().await?, [outcome(1, Final::Duplicate, 202), DONE]);
    Ok(())
}

#[tokio::test]
async fn an_empty_batch_closes_the_gate_for_older_epochs() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[FOR_EVER]).await?;
    let gate = receiver.gate().await?;
    let mut closing = receiver.post(&batch(Some(gate), 2, 0, &[])).await?;
    assert_eq!((closing.status.as_u16(), closing.lines().await?), (200, vec![DONE]), "nothing was there");
    assert_eq!(receiver.post(&batch(Some(gate), 1, 0, &[1])).await?.status, 409);

    let mut old = receiver.post(&batch(Some(gate), 2, 0, &[1, 2])).await?;
    let asked = instance.asked().await?;
    let mut closing = receiver.post(&batch(Some(gate), 3, 0, &[])).await?;
    receiver.lane(|lane| lane["waiting_batches"] == 1).await?;
    asked.answer(202);
    assert_eq!(closing.lines().await?, [DONE], "once nothing of the old owner's is at the instance");
    assert_eq!(old.lines().await?, [delivered(1), Line::End(Closing::StaleEpoch { known: Epoch(3) })]);
    assert_eq!(receiver.post(&batch(Some(gate), 2, 0, &[2])).await?.status, 409);
    let elsewhere = receiver.post(&batch(None, 4, 0, &[])).await?;
    assert_eq!(elsewhere.status, 409, "for another life of the receiver it closes nothing");
    assert_eq!(receiver.lane(|_| true).await?["epoch"], 3);
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn remembered_outcomes_let_the_next_batch_go_on_at_once() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[FOR_EVER]).await?;
    let gate = receiver.gate().await?;
    let mut before = receiver.post(&batch(Some(gate), 1, 0, &[1, 2])).await?;
    instance.takes(1).await?;
    instance.takes(2).await?;
    before.lines().await?;

    // A new owner repeats both, for it has not heard of them; its second batch is here first.
    let mut second = receiver.post(&batch(Some(gate), 2, 2, &[3])).await?;
    receiver.lane(|lane| lane["waiting_batches"] == 1).await?;
    let mut first = receiver.post(&batch(Some(gate), 2, 0, &[1, 2])).await?;
    let known = |seq| outcome(seq, Final::Duplicate, 202);
    assert_eq!(first.lines().await?, [known(1), known(2), DONE]);
    instance.takes(3).await?;
    assert_eq!(second.lines().await?, [delivered(3), DONE]);
    Ok(())
}

#[tokio::test]
async fn a_waiting_batch_whose_sender_goes_is_gone_too() -> Result<()> {
    let instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[FOR_EVER]).await?;
    let gate = receiver.gate().await?;
    let waiting = receiver.post(&batch(Some(gate), 1, 4, &[6])).await?;
    receiver.lane(|lane| lane["waiting_batches"] == 1).await?;
    drop(waiting);
    receiver.lane(|lane| lane["waiting_batches"] == 0).await.map(drop)
}
