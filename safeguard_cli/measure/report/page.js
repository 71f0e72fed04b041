for (const section of document.querySelectorAll("section.examples")) {
  const words = section.querySelector("input[type=search]");
  const label = section.querySelector("select");
  const wrong = section.querySelector("input[type=checkbox]");
  const rows = [...section.querySelectorAll("article")];
  const count = section.querySelector("output");
  const filter = () => {
    const wanted = words.value.toLowerCase();
    for (const row of rows) {
      row.hidden =
        (label.value !== "" && row.dataset.label !== label.value) ||
        (wrong !== null && wrong.checked && row.dataset.wrong !== "1") ||
        !row.textContent.toLowerCase().includes(wanted);
    }
    count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  section.querySelector("form").addEventListener("input", filter);
  section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  filter();
}
