"use strict";
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const hosts = [...document.querySelectorAll("[data-host]")];
  const groups = [...document.querySelectorAll("[data-group]")];
  const told = form.querySelector("output");
  const apply = () => {
    const host = form.elements.host.value.trim().toLowerCase();
    const state = form.elements.state.value;
    const card = form.elements.card.value;
    const shown = new Set();
    for (const element of hosts) {
      const data = element.dataset;
      const fits =
        data.host.toLowerCase().includes(host) &&
        (state === "" || data.state === state) &&
        (card === "" || data.cards.split("\n").includes(card));
      element.hidden = !fits;
      if (fits) shown.add(data.host);
    }
    for (const group of groups) {
      const names = group.dataset.group.split("\n");
      group.hidden = !names.some((name) => shown.has(name));
    }
    told.textContent = shown.size + " of " + new Set(hosts.map((h) => h.dataset.host)).size + " hosts";
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
