//! Digests of a secret and a challenge.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq;

/// A digest for challenges, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthDigest {
    /// SHA-512.
    Sha512,
    /// SHA-256.
    Sha256,
    /// SHA-1.
    Sha1,
    /// MD5.
    Md5,
    /// MD4.
    Md4,
    /// The unnamed MD4 of protocols below 30, which has four zero bytes before the secret.
    OldMd4,
}

impl AuthDigest {
    /// All that have a name of their own, in the order in which they are preferred and listed.
    pub const ALL: [Self; 5] = [Self::Sha512, Self::Sha256, Self::Sha1, Self::Md5, Self::Md4];

    /// The weakest that is taken where nobody asks for a weaker one.
    pub const WEAKEST: Self = Self::Md5;

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha512 => "sha512",
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
            Self::Md4 | Self::OldMd4 => "md4",
        }
    }

    /// The digest of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|digest| digest.name() == name)
    }

    /// What proves knowledge of `secret` to whom sent `challenge`, as text.
    pub fn answer(self, secret: &[u8], challenge: &[u8]) -> String {
        let sum = match self {
            Self::Sha512 => of::<sha2::Sha512>(secret, challenge),
            Self::Sha256 => of::<sha2::Sha256>(secret, challenge),
            Self::Sha1 => of::<sha1::Sha1>(secret, challenge),
            Self::Md5 => of::<md5::Md5>(secret, challenge),
            Self::Md4 => of::<md4::Md4>(secret, challenge),
            Self::OldMd4 => of::<md4::Md4>(&[&[0; 4], secret].concat(), challenge),
        };
        STANDARD_NO_PAD.encode(sum)
    }

    /// The text of a challenge made of random bytes.
    pub fn challenge(random: &[u8]) -> String {
        STANDARD_NO_PAD.encode(random)
    }
}

/// Whether two answers are the same, in a time that does not tell where they differ.
pub fn matches(answer: &[u8], expected: &[u8]) -> bool {
    answer.ct_eq(expected).into()
}

fn of<D: md5::Digest>(secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    D::new().chain_update(secret).chain_update(challenge).finalize().to_vec()
}
