//! Addresses and ranges of them, as in `--ignore-peer`.

use std::net::IpAddr;

/// An address with a prefix length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: u128,
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Result<Network, &'static str> {
        const WHAT: &str = "not an address or CIDR (try 10.0.0.7 or 10.0.0.0/8)";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit()) => {
                (address, Some(prefix))
            }
            Some(_) => return Err(WHAT),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WHAT)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse::<u8>).map_err(|_| WHAT)?;
        if prefix > width {
            return Err("a prefix longer than the address");
        }
        Ok(Network { address: bits(address), prefix: 128 - width + prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefix == 0 || (bits(address) ^ self.address) >> (128 - u32::from(self.prefix)) == 0
    }
}

/// The address as 128 bits. IPv4 becomes its v4-mapped IPv6 address, which is also what a dual-stack listener sees.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let ten = Network::parse("10.0.0.0/8").unwrap();
        assert!(ten.contains("10.9.8.7".parse().unwrap()) && ten.contains("::ffff:10.1.1.1".parse().unwrap()));
        assert!(!ten.contains("11.0.0.1".parse().unwrap()));
        assert!(Network::parse("::/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(Network::parse("fe80::1").unwrap().contains("fe80::1".parse().unwrap()));
        for text in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "x", "::1/129", "10.0.0.1/8/8"] {
            assert!(Network::parse(text).is_err(), "{text:?}");
        }
    }
}
