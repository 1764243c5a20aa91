//! Holders in 24 bytes each: a 128-bit hash of the user id under a key of this process, and the packed state.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::domain::UserId;

/// A user id's hash. 128 bits under a secret key: two users of a coupon share one with probability below 10^-24 at five million holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserKey([u64; 2]);

impl Hash for UserKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

/// Makes [`UserKey`]s under random keys drawn at start.
#[derive(Debug, Clone, Copy)]
pub struct UserHasher {
    keys: [u64; 2],
}

impl UserHasher {
    pub fn random() -> Self {
        Self { keys: [RandomState::new().hash_one(1_u8), RandomState::new().hash_one(2_u8)] }
    }

    pub fn key(&self, user: &UserId) -> UserKey {
        self.key_of(user.as_str())
    }

    pub fn key_of(&self, user: &str) -> UserKey {
        let mut hasher = SipHasher24::new_with_keys(self.keys[0], self.keys[1]);
        hasher.write(user.as_bytes());
        let hash = hasher.finish128();
        UserKey([hash.h1, hash.h2])
    }
}

/// The map's hash of a [`UserKey`] is its first half: it is a keyed hash already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub type PrehashedState = std::hash::BuildHasherDefault<Prehashed>;
