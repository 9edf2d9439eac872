//! ROCA (CVE-2017-15361): RSA keys made by Infineon firmware before 7.62 can be factored.
//!
//! Nemec, Sys, Svenda, Klinec, Matyas: "The Return of Coppersmith's Attack" (ACM CCS 2017), §2 and §5.1: their primes
//! are k·M + (65537^a mod M), so a modulus is a power of 65537 modulo each small prime that divides M. This holds for
//! any other modulus with a probability of about 2^-27.

use openssl::bn::BigNumRef;
use openssl::error::ErrorStack;

/// The primes that divide M for keys of all lengths (§2.1: the first 39 primes, for keys of 512 bits; longer keys
/// have more), without 2.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];
const GENERATOR: u32 = 65537;

/// Whether the modulus has the fingerprint.
pub(crate) fn has_fingerprint(modulus: &BigNumRef) -> Result<bool, ErrorStack> {
    for prime in PRIMES {
        let residue = modulus.mod_word(prime)?;
        let powers =
            std::iter::successors(Some(1), |power| Some(power * (GENERATOR % prime) % prime));
        // The powers repeat after at most prime - 1 steps.
        if !powers
            .take(prime as usize)
            .any(|power| u64::from(power) == residue)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use openssl::bn::{BigNum, BigNumContext, MsbOption};
    use openssl::rsa::Rsa;

    use super::*;

    /// A prime of 1024 bits as the flawed firmware makes them: M is the product of the first 126 primes for keys of
    /// 2048 bits (§2.1).
    fn weak_prime() -> BigNum {
        let context = &mut *BigNumContext::new().unwrap();
        let mut product = BigNum::from_u32(1).unwrap();
        let is_prime = |n: &u32| {
            (2..*n)
                .take_while(|d| d * d <= *n)
                .all(|d| !n.is_multiple_of(d))
        };
        (2..)
            .filter(is_prime)
            .take(126)
            .for_each(|prime| product.mul_word(prime).unwrap());
        let generator = BigNum::from_u32(GENERATOR).unwrap();
        loop {
            let (mut a, mut k) = (BigNum::new().unwrap(), BigNum::new().unwrap());
            a.rand(254, MsbOption::MAYBE_ZERO, false).unwrap();
            k.rand(1024 - product.num_bits(), MsbOption::TWO_ONES, false)
                .unwrap();
            let (mut power, mut prime) = (BigNum::new().unwrap(), BigNum::new().unwrap());
            power.mod_exp(&generator, &a, &product, context).unwrap();
            prime.checked_mul(&k, &product, context).unwrap();
            let mut candidate = BigNum::new().unwrap();
            candidate.checked_add(&prime, &power).unwrap();
            if candidate.is_prime(20, context).unwrap() {
                return candidate;
            }
        }
    }

    /// A modulus as the flawed firmware makes them.
    pub(crate) fn weak_modulus() -> BigNum {
        let mut modulus = BigNum::new().unwrap();
        let context = &mut *BigNumContext::new().unwrap();
        modulus
            .checked_mul(&weak_prime(), &weak_prime(), context)
            .unwrap();
        modulus
    }

    #[test]
    fn flawed_keys_are_recognised_and_others_are_not() {
        assert!(has_fingerprint(&weak_modulus()).unwrap());
        for _ in 0..5 {
            let key = Rsa::generate(2048).unwrap();
            assert!(!has_fingerprint(key.n()).unwrap());
        }
    }
}
