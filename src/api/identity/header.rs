//! Identity by plain headers: for development on loopback, and from a gateway that has checked the caller.

use std::net::IpAddr;
use std::str::FromStr;

use actix_web::http::header::{HeaderMap, HeaderName};
use thiserror::Error;

use super::Caller;
use crate::domain::UserId;

const USER_ID: HeaderName = HeaderName::from_static("x-user-id");
const ADMIN: HeaderName = HeaderName::from_static("x-admin");

/// Addresses that a gateway may come from: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is neither an address nor a network.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("must be an IP address or a network such as 10.0.0.0/8")]
pub struct BadNetwork;

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| BadNetwork)?;
        if prefix > most { Err(BadNetwork) } else { Ok(Self { address, prefix }) }
    }
}

impl Network {
    /// Whether `address` is one of this network; an IPv4 address in IPv6 clothes is an IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => same_prefix(u128::from(mine.to_bits() ^ other.to_bits()) << 96, self.prefix),
            (IpAddr::V6(mine), IpAddr::V6(other)) => same_prefix(mine.to_bits() ^ other.to_bits(), self.prefix),
            _ => false,
        }
    }
}

/// Whether the first `prefix` bits are all zero.
const fn same_prefix(difference: u128, prefix: u8) -> bool {
    difference.leading_zeros() >= prefix as u32
}

/// The caller that the headers name; a header given twice names nobody.
pub(super) fn caller(headers: &HeaderMap) -> Result<Caller, &'static str> {
    let user = single(headers, &USER_ID).map_err(|()| "X-User-Id must be given once")?.ok_or("X-User-Id is missing")?;
    let user: UserId = user.parse().map_err(|_| "X-User-Id must be 1-64 characters of A-Z a-z 0-9 . _ : @ -")?;
    let admin = match single(headers, &ADMIN) {
        Ok(None | Some("false")) => false,
        Ok(Some("true")) => true,
        Ok(Some(_)) | Err(()) => return Err("X-Admin must be true or false, given once"),
    };
    Ok(Caller { user, admin })
}

/// The header's one value; an error when there are several or it is not text.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn networks_contain_what_they_should() {
        for (network, address) in [
            ("10.0.0.0/8", "10.255.1.2"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7", "::ffff:10.0.0.7"),
            ("0.0.0.0/0", "1.2.3.4"),
            ("fd00::/8", "fdff::1"),
            ("::1", "::1"),
        ] {
            assert!(inside(network, address), "{network} {address}");
        }
        for (network, address) in [("10.0.0.0/8", "11.0.0.1"), ("10.0.0.7", "10.0.0.6"), ("0.0.0.0/0", "::1"), ("fd00::/8", "fe00::1")] {
            assert!(!inside(network, address), "{network} {address}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "host", "10.0.0.0/-1"] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }
}
