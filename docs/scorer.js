// How Sphinx's search ranks pages: a chapter that is about the words stands before the source, the list of names and what only mentions them
Scorer = {
  score: ([docname, title, anchor, descr, score, filename]) => {
    if (docname.startsWith("source/") || docname === "genindex") return score - 20;
    if (docname.startsWith("api/")) return score - 3;
    return score;
  },
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
