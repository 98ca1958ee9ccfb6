//! The right size under random input: quantities against exact fractions, counts, the kernel's weights, templates, users.

use std::borrow::Cow;

use lameduck::core::size::cpu::{self, Millicores};
use lameduck::core::size::quantity;
use lameduck::core::size::workers::{self, Decided, Decimal, Memory, Policy};
use lameduck::core::start::identity::{self, Identity};
use lameduck::core::start::template;
use lameduck::core::start::url::{Target, Url};
use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;

#[path = "size/properties.rs"]
mod properties;

use properties::{in_units, model, rendered};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

// ---- Quantities ----

/// What Kubernetes' grammar lets one write, in parts: sign, digits, fraction, suffix.
fn quantity_text() -> impl Strategy<Value = (String, String, Option<String>, String)> {
    let sign = prop::sample::select(vec!["", "+"]);
    let digits = prop_oneof![3 => "[0-9]{0,4}", 1 => "0{0,30}[0-9]{0,22}"];
    let fraction = prop::option::of(prop_oneof![3 => "[0-9]{0,4}", 1 => "[0-9]{0,40}", 1 => "[0-9]{0,3}0{0,60}"]);
    let named = vec!["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let suffix = prop_oneof![3 => prop::sample::select(named).prop_map(str::to_owned), 1 => "[eE][+-]?[0-9]{1,2}"];
    (sign, digits, fraction, suffix)
        .prop_map(|(sign, digits, fraction, suffix)| (sign.to_owned(), digits, fraction, suffix))
        .prop_filter("no digit", |(_, digits, fraction, _)| {
            !digits.is_empty() || fraction.as_ref().is_some_and(|f| !f.is_empty())
        })
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_quantity_is_what_exact_fractions_say((sign, digits, fraction, suffix) in quantity_text()) {
        let point = fraction.as_ref().map_or(String::new(), |fraction| format!(".{fraction}"));
        let text = format!("{sign}{digits}{point}{suffix}");
        properties::a_quantity_is_what_exact_fractions_say(&text, &digits, fraction.as_deref().unwrap_or_default(), &suffix);
        let negative = format!("-{digits}{point}{suffix}");
        prop_assert!(quantity::parse(&negative, 3, "what").is_err());
    }

    /// Nothing but the grammar is read: a text with a character that has no place in it never is.
    #[test]
    fn what_is_no_quantity_is_refused((sign, digits, fraction, suffix) in quantity_text(), odd in "[ _,xXiKib%e-]|\\.\\.|é|１|\\x00") {
        let point = fraction.map_or(String::new(), |fraction| format!(".{fraction}"));
        for text in [
            format!("{odd}{sign}{digits}{point}{suffix}"),
            format!("{sign}{odd}{digits}{point}{suffix}"),
            format!("{sign}{digits}{point}{suffix}{suffix}{odd}"),
        ] {
            prop_assert!(cpu::parse_quantity(&text).is_err(), "{:?}", text);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in any::<String>()) {
        let _ = (cpu::parse_quantity(&text), quantity::parse(&text, 0, ""), cpu::parse_millicores(&text), cpu::parse_cpu_max(&text));
        let _ = (Decimal::parse(&text), Target::parse(&text), Url::parse(&text));
        let _ = lameduck::core::size::cgroup::memory_limit(&text);
    }

    #[test]
    fn millicores_are_whole_numbers_and_nothing_else(milli in 0u64..2_000_000_000_000, tail in "[m.eEKk +-]{0,2}") {
        let known = (milli <= 1_000_000_000_000).then_some(Millicores(milli));
        prop_assert_eq!(cpu::parse_millicores(&milli.to_string()).ok(), known);
        prop_assert_eq!(cpu::parse_millicores(&format!(" {milli}\n")).ok(), known);
        prop_assert_eq!(cpu::parse_millicores(&format!("{milli}{tail}")).is_ok(), known.is_some() && tail.trim().is_empty());
    }
}

#[test]
fn thousands_of_digits_are_as_exact_as_few() {
    let many = 5000;
    let (zeroes, nines) = ("0".repeat(many), "9".repeat(many));
    for (digits, fraction, suffix) in [
        (format!("{zeroes}15"), format!("{zeroes}1"), "m"),
        (format!("{zeroes}2"), zeroes.clone(), ""),
        ("1".to_owned(), nines.clone(), "Ki"),
        ("1".to_owned(), nines.clone(), "u"),
        (nines.clone(), String::new(), "n"),
        (nines.clone(), nines.clone(), "Ei"),
        (zeroes.clone(), format!("{zeroes}1"), "Ei"),
        (zeroes.clone(), zeroes.clone(), "E"),
        ("1".to_owned(), nines, "e-99"),
    ] {
        let value = model(&digits, &fraction, suffix);
        let read = quantity::parse(&format!("{digits}.{fraction}{suffix}"), 3, "what");
        assert_eq!(read.ok(), in_units(&value, 3), "{} digits and {suffix:?}", digits.len());
    }
}

// ---- Workers ----

fn policy() -> impl Strategy<Value = Policy> {
    let range = prop_oneof![0u64..20, 0u64..=u64::from(u32::MAX)];
    (0u64..3_000_000, any::<i32>(), -20i64..20, any::<bool>(), range.clone(), prop::option::of(range)).prop_map(
        |(per_cpu, far, near, is_near, min, more)| Policy {
            per_cpu: Decimal(per_cpu),
            extra: if is_near { near } else { far.into() },
            min,
            // What `plan` lets through: at least 1, not below min.
            max: more.map(|more| (min + more).max(1)),
        },
    )
}

fn memory() -> impl Strategy<Value = Memory> {
    (0u64..1 << 40, 0u64..1 << 40, 1u64..1 << 34).prop_map(|(a, b, worker)| Memory { limit: a.max(b), reserve: a.min(b), worker })
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_count_is_rounded_and_clamped_as_exact_fractions_say(
        milli in prop_oneof![0u64..20_000, 0u64..=1_000_000_000_000],
        policy in policy(),
        memory in prop::option::of(memory()),
    ) {
        let cpu = BigRational::new(milli.into(), 1000.into()) * BigRational::new(policy.per_cpu.0.into(), 1_000_000.into());
        // Half up: the floor of one half more.
        let rounded = (cpu + BigRational::new(1.into(), 2.into())).floor().to_integer();
        let wanted = (rounded + BigInt::from(policy.extra)).max(policy.min.into());
        let wanted = policy.max.map_or(wanted.clone(), |max| wanted.min(max.into()));
        let held = memory.map(|memory| BigInt::from((memory.limit - memory.reserve) / memory.worker));
        let expected = held.map_or(wanted.clone(), |held| wanted.min(held)).max(1.into());

        let (count, decided) = workers::count(Millicores(milli), &policy, memory.as_ref());
        prop_assert_eq!(BigInt::from(count), expected);
        // Whoever is said to have decided did.
        match decided {
            Decided::Cpu => prop_assert_eq!(count, workers::by_cpu(Millicores(milli), &policy)),
            Decided::Min => prop_assert_eq!(count, policy.min),
            Decided::Max => prop_assert_eq!(Some(count), policy.max),
            Decided::Memory => prop_assert_eq!(Some(count), memory.map(|memory| memory.holds())),
            Decided::One => prop_assert_eq!(count, 1),
        }
        if let Some(memory) = memory.filter(|_| count > 1) {
            prop_assert!(u128::from(count) * u128::from(memory.worker) + u128::from(memory.reserve) <= memory.limit.into());
        }
    }

    /// More CPU never makes fewer workers, more memory neither.
    #[test]
    fn more_is_never_less(milli in 0u64..100_000, more in 0u64..100_000, policy in policy(), memory in memory(), bytes in 0u64..1 << 30) {
        let count = |milli, memory: &Memory| workers::count(Millicores(milli), &policy, Some(memory)).0;
        prop_assert!(count(milli + more, &memory) >= count(milli, &memory));
        let larger = Memory { limit: memory.limit + bytes, ..memory };
        prop_assert!(count(milli, &larger) >= count(milli, &memory));
    }

    #[test]
    fn a_decimal_comes_back_as_it_was_written(whole in 0u64..1_000_000, fraction in "[0-9]{0,5}[1-9]") {
        let text = format!("{whole}.{fraction}");
        prop_assert_eq!(Decimal::parse(&text).unwrap().to_string(), text.as_str());
        prop_assert_eq!(Decimal::parse(&whole.to_string()).unwrap().to_string(), whole.to_string());
        let refused = [format!("{text}0000000"), format!("-{text}"), format!("{text}.0"), format!(".{fraction}"), format!("{whole}.")];
        for text in refused {
            prop_assert!(Decimal::parse(&text).is_err(), "{}", text);
        }
    }
}

// ---- Shares and weights ----

/// As the kubelet writes a request (MilliCPUToShares).
fn kubelet_shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).max(2)
}

#[test]
fn every_request_comes_back_from_its_shares() {
    for milli in 3..=256_000 {
        // 1024 is Docker's default too: nobody can tell.
        let known = Some(Millicores(milli)).filter(|_| milli != 1000);
        assert_eq!(cpu::shares_to_request(kubelet_shares(milli)), known, "{milli}m");
    }
    for milli in 0..=2 {
        assert_eq!(cpu::shares_to_request(kubelet_shares(milli)), None, "{milli}m");
    }
}

/// Where a weight is told at all, it is the request that was made, by either formula; and where both could have been, it is not told.
#[test]
fn every_request_comes_back_from_its_weight_or_is_not_told() {
    let steps = || (1..=1280).map(|step| step * 50);
    let formulas: [fn(u64) -> u64; 2] = [cpu::linear_weight, cpu::quadratic_weight];
    for cores in [1, 4, 64] {
        let most = Millicores(cores * 1000);
        let mut told = 0;
        for milli in steps().filter(|milli| *milli <= most.0) {
            for formula in formulas {
                let weight = formula(milli);
                // By brute force: whoever could have asked for this.
                let mut candidates: Vec<u64> =
                    formulas.iter().flat_map(|formula| steps().filter(|m| *m <= most.0 && formula(*m) == weight)).collect();
                candidates.sort_unstable();
                let expected = (candidates.len() == 1 && weight != 100).then_some(Millicores(milli));
                assert_eq!(cpu::weight_to_request(weight, Some(most)), expected, "{milli}m as {weight} of {cores} cores");
                told += usize::from(expected.is_some());
            }
        }
        assert!(told > 0, "nothing is told on {cores} cores");
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn no_figure_of_a_kernel_or_of_nobody_makes_a_reader_panic(number in any::<u64>(), period in any::<u64>(), most in any::<u64>()) {
        let _ = (cpu::shares_to_request(number), cpu::weight_to_request(number, Some(Millicores(most))));
        let _ = cpu::weight_to_request(number, None);
        let _ = cpu::quota_to_limit(number, period);
    }

    #[test]
    fn a_quota_is_the_limit_rounded_up(quota in 1u64..1 << 40, period in 1u64..1_000_000) {
        let exact = BigRational::new(BigInt::from(quota) * 1000, period.into()).ceil().to_integer();
        let limit = cpu::parse_cpu_max(&format!("{quota} {period}\n")).unwrap();
        prop_assert_eq!(BigInt::from(limit.0), exact);
        prop_assert_eq!(cpu::parse_cpu_max(&format!("max {period}\n")), None);
    }
}

// ---- Templates ----

/// Text that is rich in what templates are made of.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[$ab \n}]{1,3}",
        prop::sample::select(vec![
            "${A}",
            "${EMPTY}",
            "${NONE}",
            "${NONE:-x}",
            "$${",
            "${",
            "}",
            ":-",
            "$",
            "é",
            "${A:-",
            "${EMPTY:-y}"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn without_a_reference_a_text_stays_as_it_is(bytes in any::<Vec<u8>>(), more in text()) {
        properties::without_a_reference_a_text_stays_as_it_is(&bytes);
        properties::without_a_reference_a_text_stays_as_it_is(more.as_bytes());
    }

    #[test]
    fn a_quoted_text_is_rendered_to_itself(text in text()) {
        properties::a_quoted_text_is_rendered_to_itself(&text);
    }

    #[test]
    fn what_is_rendered_is_done(text in text()) {
        properties::what_is_rendered_is_done(&text);
    }

    /// Values are put in as they are, not read as templates.
    #[test]
    fn a_value_is_never_rendered(value in text(), before in "[a-z\n]{0,5}", after in "[a-z\n]{0,5}") {
        let result = template::render(format!("{before}${{V}}{after}").as_bytes(), |_| Some(Cow::from(value.clone().into_bytes())));
        prop_assert_eq!(result, Ok(format!("{before}{value}{after}").into_bytes()));
    }

    #[test]
    fn a_fault_is_on_the_first_line_that_has_one(text in text()) {
        properties::a_fault_is_on_the_first_line_that_has_one(&text);
    }

    #[test]
    fn no_bytes_make_a_template_panic(bytes in any::<Vec<u8>>(), text in text()) {
        let _ = (rendered(&bytes), rendered(&[&bytes[..], text.as_bytes(), &bytes].concat()));
    }
}

// ---- Users ----

/// Lines of passwd and group, some of them broken.
fn table() -> impl Strategy<Value = String> {
    let field =
        prop_oneof![Just(String::new()), "[a-c]{1,2}", "[0-9]{1,3}", Just("4294967295".to_owned()), Just("-1".to_owned())];
    let members = prop::collection::vec("[a-c]{1,2}", 0..3).prop_map(|members| members.join(","));
    let line = prop_oneof![
        5 => (prop::collection::vec(field, 1..7), members).prop_map(|(fields, members)| format!("{}:{members}", fields.join(":"))),
        1 => any::<String>(),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn no_user_and_no_table_make_it_panic_and_nobody_is_the_kernels_nobody(
        user in prop_oneof!["[a-c0-9]{0,3}(:[a-c0-9]{0,3})?", any::<String>()],
        passwd in table(),
        group in table(),
    ) {
        match identity::identify(&user, &passwd, &group) {
            Ok(Identity { uid, gid, groups, home }) => {
                prop_assert!(uid != u32::MAX && gid != u32::MAX && !groups.contains(&u32::MAX), "{} {} {:?}", uid, gid, groups);
                prop_assert!(groups.contains(&gid), "{} is not among {:?}", gid, groups);
                prop_assert!(!home.is_empty());
                if user.contains(':') {
                    prop_assert_eq!(groups, vec![gid]);
                }
            }
            Err(why) => prop_assert!(!why.is_empty() && !why.contains('\n') || user.contains('\n')),
        }
    }

    /// Numbers need no table.
    #[test]
    fn numbers_are_themselves(uid in 0..u32::MAX, gid in 0..u32::MAX) {
        let both = identity::identify(&format!("{uid}:{gid}"), "", "").unwrap();
        prop_assert_eq!((both.uid, both.gid, both.groups), (uid, gid, vec![gid]));
        let alone = identity::identify(&uid.to_string(), "", "").unwrap();
        prop_assert_eq!((alone.uid, alone.gid), (uid, 0));
    }
}
