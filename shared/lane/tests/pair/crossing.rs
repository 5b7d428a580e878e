//! The way across and the far side: requests, lines, silence, and the receiver's work.

use fedstream_lane::{Batch, End, Epoch, Event, Moment, PostId};

use super::history::{History, What};
use super::instance::Attempt;
use crate::far::{AtInstance, Did, Line, Request, Said};

/// A sender gives a POST up after so long without any line (DESIGN section 6).
const SILENCE_MS: u64 = 30_000;
/// The far side says something at least so often.
const BEAT_MS: u64 = 10_000;

/// A POST that has not ended for its owner.
#[derive(Debug)]
pub struct Post {
    /// Whose.
    pub sender: usize,
    epoch: Epoch,
    name: PostId,
    /// Lines of one answer come in order.
    last_line_at: u64,
    heard_at: u64,
    /// Nothing comes through any more, and nobody knows.
    is_broken: bool,
}

impl History {
    /// Most crossings take what light takes; a few take seconds.
    fn crossing_ms(&mut self) -> u64 {
        let late = if self.rng.chance(10) { self.rng.spread(100, 25_000) } else { 0 };
        self.link_ms + self.rng.between(0, self.link_ms / 4) + late
    }

    fn link_is_down(&self) -> bool {
        self.now < self.link_down_until
    }

    pub(super) fn post(&mut self, sender: usize, epoch: Epoch, batch: Batch) {
        let id = self.posts_made;
        self.posts_made += 1;
        let (now, name) = (self.now, batch.post);
        let post = Post { sender, epoch, name, last_line_at: now, heard_at: now, is_broken: false };
        self.posts.insert(id, post);
        self.after(SILENCE_MS, What::Silence(id));
        if self.link_is_down() || self.rng.chance(5) {
            return self.ledger.saw("a request is lost");
        }
        let request = Request::new(id, epoch, batch);
        if self.rng.chance(5) {
            self.ledger.saw("a request is repeated");
            let (mut again, ms) = (request.clone(), self.crossing_ms());
            again.heard = false;
            self.after(ms, What::Reached(again));
        }
        let ms = self.crossing_ms();
        self.after(ms, What::Reached(request));
    }

    pub(super) fn reached(&mut self, request: Request) {
        let (post, heard) = (request.post, request.heard);
        if self.now < self.far_down_until {
            return if heard {
                self.send_line(post, Some(Line::Over(End::Lost)))
            };
        }
        let id = self.far.arrive(request);
        self.after(BEAT_MS, What::Beat(id));
        self.work();
    }

    pub(super) fn beat(&mut self, id: u64) {
        let told = self.far.requests().find(|(of, _)| *of == id).map(|(_, request)| (request.post, request.heard));
        let Some((post, heard)) = told else { return };
        if heard {
            self.send_line(post, None);
        }
        self.after(BEAT_MS, What::Beat(id));
    }

    /// The receiver takes every request as far as it goes.
    pub(super) fn work(&mut self) {
        self.far_timers.retain(|timer| *timer > self.now);
        let mut goes_on = true;
        while std::mem::take(&mut goes_on) {
            for id in self.far.requests().map(|(id, _)| id).collect::<Vec<_>>() {
                goes_on |= self.work_on(id);
            }
        }
    }

    /// Did it say anything?
    fn work_on(&mut self, id: u64) -> bool {
        let mut said = false;
        loop {
            let before = self.far.at_instance.len();
            match self.far.work(Moment(self.now), id, &mut self.ledger) {
                Did::Says(line) => {
                    said = true;
                    self.hand_on(line);
                    if matches!(line.line, Line::Over(_)) {
                        return said;
                    }
                }
                Did::AtInstance if self.far.at_instance.len() > before => {
                    self.begin();
                    return said;
                }
                Did::Waits(Some(Moment(until))) => {
                    if self.far_timers.insert(until) {
                        self.after(until.saturating_sub(self.now), What::Work);
                    }
                    return said;
                }
                Did::AtInstance | Did::Waits(None) => return said,
            }
        }
    }

    fn begin(&mut self) {
        let Some(at) = self.far.at_instance.last().copied() else { return };
        let activity = self.activities[&at.seq];
        let attempt = self.instance.attempt(&mut self.rng, self.now, at.seq, &activity);
        self.say(|_| format!("instance: {} begins, {attempt:?}", at.seq));
        self.after(attempt.ms, What::Finished(at, attempt));
    }

    pub(super) fn finished(&mut self, at: AtInstance, attempt: Attempt) {
        self.far.at_instance.retain(|other| (other.life, other.request) != (at.life, at.request));
        let reached = at.life == self.far.life() && attempt.result.is_ok();
        self.ledger.done(at.life, at.seq, attempt.outcome, reached);
        if let Did::Says(said) = self.far.finished(at, attempt.result) {
            self.hand_on(said);
        }
        self.work();
    }

    pub(super) fn crash_far(&mut self) {
        let ms = self.rng.spread(100, 30_000);
        self.far_down_until = self.now + ms;
        for post in self.far.restart() {
            self.send_line(post, Some(Line::Over(End::Lost)));
        }
    }

    fn hand_on(&mut self, said: Said) {
        if said.heard {
            self.send_line(said.post, Some(said.line));
        }
    }

    fn send_line(&mut self, id: usize, line: Option<Line>) {
        let breaks = self.link_is_down() || self.rng.chance(2);
        let ms = self.crossing_ms();
        let Some(post) = self.posts.get_mut(&id).filter(|post| !post.is_broken) else { return };
        if breaks {
            post.is_broken = true;
            let ms = self.rng.spread(100, 60_000);
            return self.after(ms, What::FoundOut(id));
        }
        post.last_line_at = post.last_line_at.max(self.now + ms);
        let ms = post.last_line_at - self.now;
        self.after(ms, What::Heard(id, line));
    }

    pub(super) fn heard(&mut self, id: usize, line: Option<Line>) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        post.heard_at = self.now;
        let (sender, epoch, name) = (post.sender, post.epoch, post.name);
        match line {
            Some(Line::Outcome(seq, outcome)) => {
                self.say(|_| format!("sender {sender} hears {seq} {outcome:?}"));
                self.ledger.heard(epoch, name, seq);
                self.tell(sender, Event::Outcome { post: name, seq, outcome });
            }
            Some(Line::Over(end)) => self.end(id, end),
            None => {}
        }
        self.drive(sender);
    }

    pub(super) fn silence(&mut self, id: usize) {
        let Some(post) = self.posts.get(&id) else { return };
        let (sender, until) = (post.sender, post.heard_at + SILENCE_MS);
        if until > self.now {
            return self.after(until - self.now, What::Silence(id));
        }
        self.end(id, End::Lost);
        self.drive(sender);
    }

    pub(super) fn cancel(&mut self, sender: usize, name: PostId) {
        let its = |post: &Post| post.sender == sender && post.name == name;
        if let Some(id) = self.posts.iter().find(|(_, post)| its(post)).map(|(id, _)| *id) {
            self.end(id, End::Lost);
        }
    }

    fn end(&mut self, id: usize, end: End) {
        let Some(post) = self.posts.remove(&id) else { return };
        self.say(|_| format!("sender {}: POST {:?} ends, {end:?}", post.sender, post.name));
        self.ledger.ended(post.epoch, post.name, &end);
        let jitter = u16::try_from(self.rng.between(0, 1000)).unwrap_or(0);
        if end == End::Lost {
            let ms = self.rng.spread(10, 60_000);
            self.after(ms, What::FoundOut(id));
        }
        self.tell(post.sender, Event::Ended { post: post.name, end, jitter });
    }

    /// A process ends or gives the lane up.
    pub(super) fn hang_up_all(&mut self, sender: usize) {
        for id in self.posts.iter().filter(|(_, post)| post.sender == sender).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.posts.remove(&id);
            let ms = self.rng.spread(10, 60_000);
            self.after(ms, What::FoundOut(id));
        }
    }

    /// No further item of it is begun; the one at the instance goes on.
    pub(super) fn found_out(&mut self, post: usize) {
        for id in self.far.requests().filter(|(_, of)| of.post == post).map(|(id, _)| id).collect::<Vec<_>>() {
            self.far.drop_request(id);
        }
        self.work();
    }
}
