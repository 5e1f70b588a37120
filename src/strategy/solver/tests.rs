//! The solver against an oracle that knows nothing of it: every layout of every
//! product, built cell by cell, with the media engines counted as the listings
//! print them instead of derived from names.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value as Json;

use super::super::geometry::{Geometry, Media, Profile, compute_of};
use super::*;

struct Product {
    geometry: Geometry,
    /// Decoders, encoders, JPEG and OFA engines of each profile; none where nobody published them.
    engines: Vec<Option<[u64; 4]>>,
}

fn number(json: &Json, key: &str) -> Option<u32> {
    json[key]
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
}

/// All products whose placements were published.
fn products() -> BTreeMap<String, Product> {
    let text = include_str!("../../../tests/fixtures/captures/nvidia/mig_profiles.json");
    let json: Json = serde_json::from_str(text).expect("the capture is JSON");
    let products = json["products"].as_object().expect("products by key");
    products
        .iter()
        .filter_map(|(key, product)| Some((key.clone(), read(key, product)?)))
        .collect()
}

fn read(key: &str, product: &Json) -> Option<Product> {
    let mut profiles = Vec::new();
    let mut engines = Vec::new();
    for row in product["profiles"].as_array()? {
        let name = row["name"].as_str()?.to_owned();
        let media = match name.split_once("gb").expect("a name with gb").1 {
            "" | "+gfx" => Media::Share,
            "+me" => Media::Set,
            "+me.all" => Media::All,
            "-me" => Media::Nothing,
            other => panic!("`{other}` is a new kind of profile"),
        };
        let starts = row["placements"]
            .as_array()?
            .iter()
            .filter_map(|p| number(p, "start"));
        let starts: Vec<u32> = starts.collect();
        assert_eq!(compute_of(&name), number(row, "compute_slices"), "{name}");
        profiles.push(Profile {
            id: number(row, "id")?,
            name,
            aliases: Vec::new(),
            compute: number(row, "compute_slices")?,
            size: number(row, "memory_slices")?,
            starts,
            max: number(row, "max_instances")?,
            media,
        });
        let engine = |key: &str| row[key].as_u64();
        engines.push((|| {
            Some([
                engine("dec")?,
                engine("enc")?,
                engine("jpeg")?,
                engine("ofa")?,
            ])
        })());
    }
    let geometry = Geometry {
        model: key.to_owned(),
        grid: number(product, "total_memory_slices")?,
        compute: number(product, "total_compute_slices")?,
        profiles,
    };
    Some(Product { geometry, engines })
}

/// What the card has of each engine: what its whole-card profile gets.
fn engine_totals(product: &Product) -> Option<[u64; 4]> {
    let whole = product.geometry.profiles.iter().position(|profile| {
        profile.size == product.geometry.grid && !profile.name.contains("+gfx")
    });
    product.engines[whole?]
}

/// All legal sets of instances, found by trying for each grid unit in turn to
/// leave it free or to start any profile there.
fn all_layouts(product: &Product) -> Vec<Vec<Placed>> {
    let mut found = Vec::new();
    let mut cells = vec![false; product.geometry.grid as usize];
    grow(product, 0, &mut cells, &mut Vec::new(), &mut found);
    found
}

fn grow(
    product: &Product,
    at: u32,
    cells: &mut Vec<bool>,
    chosen: &mut Vec<Placed>,
    found: &mut Vec<Vec<Placed>>,
) {
    if at as usize == cells.len() {
        found.push(chosen.clone());
        return;
    }
    grow(product, at + 1, cells, chosen, found);
    for (profile, row) in product.geometry.profiles.iter().enumerate() {
        let range = at as usize..(at + row.size) as usize;
        if !row.starts.contains(&at)
            || range.end > cells.len()
            || cells[range.clone()].contains(&true)
        {
            continue;
        }
        chosen.push(Placed { profile, start: at });
        if allowed(product, chosen) {
            cells[range.clone()].fill(true);
            grow(product, at + 1, cells, chosen, found);
            cells[range].fill(false);
        }
        chosen.pop();
    }
}

fn allowed(product: &Product, chosen: &[Placed]) -> bool {
    let rows = || {
        chosen
            .iter()
            .map(|placed| &product.geometry.profiles[placed.profile])
    };
    let compute: u32 = rows().map(|row| row.compute).sum();
    let few_enough =
        |row: &Profile| rows().filter(|other| other.id == row.id).count() <= row.max as usize;
    if compute > product.geometry.compute || !rows().all(few_enough) {
        return false;
    }
    let taken: Option<Vec<[u64; 4]>> = chosen
        .iter()
        .map(|placed| product.engines[placed.profile])
        .collect();
    match (engine_totals(product), taken) {
        (Some(totals), Some(taken)) => {
            (0..4).all(|engine| taken.iter().map(|row| row[engine]).sum::<u64>() <= totals[engine])
        }
        // Nobody published the engines: what is documented is one `+me` a card.
        _ => rows().filter(|row| row.name.contains("+me")).count() <= 1,
    }
}

fn counts(geometry: &Geometry, layout: &[Placed]) -> Vec<u32> {
    let mut counts = vec![0; geometry.profiles.len()];
    for placed in layout {
        counts[placed.profile] += 1;
    }
    counts
}

/// Every vector of counts with at most `total` instances.
fn multisets(kinds: usize, total: u32) -> Vec<Vec<u32>> {
    if kinds == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for count in 0..=total {
        for mut rest in multisets(kinds - 1, total - count) {
            rest.push(count);
            all.push(rest);
        }
    }
    all
}

#[test]
fn every_layout_that_the_rules_allow_is_found_and_none_that_they_forbid() {
    let products = products();
    assert!(products.len() >= 13, "{:?}", products.keys());
    for (key, product) in &products {
        let geometry = &product.geometry;
        let reachable: BTreeSet<Vec<u32>> = all_layouts(product)
            .iter()
            .map(|layout| counts(geometry, layout))
            .collect();
        let most = reachable
            .iter()
            .map(|layout| layout.iter().sum::<u32>())
            .max();
        let most = most.expect("at least the empty layout");
        for wanted in multisets(geometry.profiles.len(), most + 1) {
            let found = place_counts(geometry, &wanted, &[]);
            assert_eq!(
                found.is_some(),
                reachable.contains(&wanted),
                "{key} {wanted:?}"
            );
            let Some(solution) = found else { continue };
            assert_eq!(counts(geometry, &solution.placed), wanted, "{key}");
            assert!(allowed(product, &solution.placed), "{key} {solution:?}");
            let mut cells = vec![false; geometry.grid as usize];
            for placed in solution.placed {
                let row = &geometry.profiles[placed.profile];
                assert!(row.starts.contains(&placed.start), "{key} {placed:?}");
                for cell in placed.start..placed.start + row.size {
                    assert!(!std::mem::replace(&mut cells[cell as usize], true), "{key}");
                }
            }
        }
    }
}

#[test]
fn no_search_on_a_real_card_comes_near_the_budget() {
    for (key, product) in &products() {
        let geometry = &product.geometry;
        for layout in all_layouts(product) {
            let wanted = counts(geometry, &layout);
            let mut kinds: Vec<usize> = (0..wanted.len()).filter(|k| wanted[*k] > 0).collect();
            kinds.sort_by_key(|kind| std::cmp::Reverse(geometry.profiles[*kind].size));
            let mut search = Search {
                geometry,
                counts: &wanted,
                kinds: &kinds,
                existing: &layout,
                busy: &[],
                stack: Vec::new(),
                best: None,
                budget: BUDGET / 100,
            };
            let left = wanted.iter().sum();
            search.descend(0, counts_of(&wanted, &kinds, 0), None, 0, 0, left);
            assert!(search.budget > 0, "{key} {wanted:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The number of kept instances is the most that any layout of the same
    /// profiles has in common with what exists.
    #[test]
    fn as_many_instances_stay_as_can(product in 0_usize..13, now in any::<prop::sample::Index>(), then in any::<prop::sample::Index>()) {
        thread_local! {
            static LAYOUTS: Vec<(Product, Vec<Vec<Placed>>)> = products()
                .into_values()
                .map(|product| { let layouts = all_layouts(&product); (product, layouts) })
                .collect();
        }
        LAYOUTS.with(|all| {
            let (product, layouts) = &all[product % all.len()];
            let (now, then) = (now.get(layouts), then.get(layouts));
            let wanted = counts(&product.geometry, then);
            let most = layouts
                .iter()
                .filter(|layout| counts(&product.geometry, layout) == wanted)
                .map(|layout| layout.iter().filter(|placed| now.contains(placed)).count())
                .max();
            let found = place_counts(&product.geometry, &wanted, now).expect("the layout exists");
            prop_assert_eq!(Some(found.kept as usize), most);
            let again = place_counts(&product.geometry, &wanted, &found.placed).expect("it exists");
            prop_assert_eq!(again.placed, found.placed);
            Ok(())
        })?;
    }
}

#[test]
fn a_lone_small_instance_lies_where_it_leaves_room() {
    let products = products();
    let geometry = &products["H100-80GB"].geometry;
    let small = geometry.find("1g.10gb").expect("the profile");
    let large = geometry.find("MIG 4G.40gb").expect("the profile");
    let alone = place(geometry, &[small], &[]).expect("it fits");
    assert_eq!(alone.placed[0].start, 6);
    let both = place(geometry, &[small, large], &alone.placed).expect("both fit");
    assert_eq!(both.kept, 1);
}
