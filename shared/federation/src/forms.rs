//! Which form of signature a remote accepted last: it goes first the next time.
//!
//! Only what differs from the usual one is kept, and of at most so many remotes: a forgotten one costs a request more, never
//! a delivery.

use std::collections::{HashMap, VecDeque};

use fedstream_lane::InstanceName;

use crate::keys::ActorKeys;
use crate::signature::Form;

/// What was learnt of remotes.
#[derive(Debug)]
pub struct Forms {
    remotes_max: usize,
    accepted: HashMap<InstanceName, Form>,
    /// In the order in which they came, for the one that leaves.
    order: VecDeque<InstanceName>,
}

impl Forms {
    /// Remembers at most so many remotes.
    #[must_use]
    pub fn new(remotes_max: usize) -> Self {
        Self { remotes_max: remotes_max.max(1), accepted: HashMap::new(), order: VecDeque::new() }
    }

    /// The forms to try with this remote, in order: what it accepted last, then the usual ones; those that the actor has a
    /// key for.
    #[must_use]
    pub fn for_remote(&self, remote: &InstanceName, keys: &ActorKeys) -> Vec<Form> {
        let first = self.accepted.get(remote).copied();
        let rest = Form::ALL.into_iter().filter(|form| Some(*form) != first);
        first.into_iter().chain(rest).filter(|form| keys.id(form.algorithm()).is_some()).collect()
    }

    /// The remote took an activity with this form.
    pub fn accepted(&mut self, remote: &InstanceName, form: Form) {
        if form == Form::ALL[0] {
            if self.accepted.remove(remote).is_some() {
                self.order.retain(|known| known != remote);
            }
            return;
        }
        if self.accepted.insert(remote.clone(), form).is_some() {
            return;
        }
        self.order.push_back(remote.clone());
        if self.order.len() > self.remotes_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.accepted.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ED25519_PEM, RSA_PKCS8_PEM};

    fn name(text: &str) -> InstanceName {
        text.parse().expect("a name")
    }

    fn keys(text: &str) -> ActorKeys {
        ActorKeys::from_pem(text, Some("https://our.example/key")).expect("keys")
    }

    #[test]
    fn the_form_that_was_accepted_goes_first_and_the_usual_one_is_usual_again() {
        let (both, remote) = (keys(&format!("{RSA_PKCS8_PEM}\n{ED25519_PEM}")), name("a.example"));
        let mut forms = Forms::new(10);
        assert_eq!(forms.for_remote(&remote, &both), Form::ALL);
        forms.accepted(&remote, Form::Rfc9421Rsa);
        assert_eq!(forms.for_remote(&remote, &both), [Form::Rfc9421Rsa, Form::Cavage, Form::Rfc9421Ed25519]);
        assert_eq!(forms.for_remote(&name("b.example"), &both), Form::ALL);
        forms.accepted(&remote, Form::Cavage);
        assert_eq!(forms.for_remote(&remote, &both), Form::ALL);
    }

    #[test]
    fn only_forms_that_the_actor_has_a_key_for_are_tried() {
        let (forms, remote) = (Forms::new(10), name("a.example"));
        assert_eq!(forms.for_remote(&remote, &keys(RSA_PKCS8_PEM)), [Form::Cavage, Form::Rfc9421Rsa]);
        assert_eq!(forms.for_remote(&remote, &keys(ED25519_PEM)), [Form::Rfc9421Ed25519]);
    }

    #[test]
    fn the_oldest_remote_is_forgotten_first() {
        let mut forms = Forms::new(2);
        for remote in ["a.example", "b.example", "b.example", "c.example"] {
            forms.accepted(&name(remote), Form::Rfc9421Rsa);
        }
        let first = |remote| forms.for_remote(&name(remote), &keys(RSA_PKCS8_PEM))[0];
        assert_eq!(
            ["a.example", "b.example", "c.example"].map(first),
            [Form::Cavage, Form::Rfc9421Rsa, Form::Rfc9421Rsa]
        );
        assert_eq!(forms.order.len(), forms.accepted.len());
    }
}
