"""A linear teacher: graded spam probabilities from folds that never saw the row, and word weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Teacher:
    """One TF-IDF + logistic regression per fold; `fold[i]` is the fold that held row i out."""

    models: tuple[Any, ...]
    fold: tuple[int, ...]
    held_out: tuple[float, ...]

    def grade(self, texts: Sequence[str], rows: Sequence[int]) -> list[float]:
        """Return p(violates) of texts derived from training rows, each graded by the model that did not see its row."""
        out = [0.0] * len(texts)
        for k, model in enumerate(self.models):
            mine = [i for i, row in enumerate(rows) if self.fold[row] == k]
            if mine:
                for i, p in zip(mine, model.predict_proba([texts[i] for i in mine])[:, 1], strict=True):
                    out[i] = float(p)
        return out


def fit(texts: Sequence[str], violates: Sequence[bool], seed: int) -> Teacher:
    """Fit a cross-fitted teacher; needs scikit-learn (extra `train`)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline, make_union

    def pipeline() -> Any:
        return make_pipeline(
            make_union(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+"),
            ),
            LogisticRegression(C=30.0, max_iter=300, solver="liblinear"),
        )

    fold = [0] * len(texts)
    models = []
    held_out = [0.0] * len(texts)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(list(texts), list(violates))
    for k, (train, test) in enumerate(splits):
        model = pipeline().fit([texts[i] for i in train], [violates[i] for i in train])
        models.append(model)
        for i, p in zip(test, model.predict_proba([texts[i] for i in test])[:, 1], strict=True):
            fold[i], held_out[i] = k, float(p)
    return Teacher(tuple(models), tuple(fold), tuple(held_out))


def word_weights(texts: Sequence[str], violates: Sequence[bool]) -> dict[str, float]:
    """Return the weight of each lower-case word towards `violates`, for choosing what to quote."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    counts = CountVectorizer(binary=True, token_pattern=r"[^\s.,;:!?'()\"]+", min_df=2)
    matrix = counts.fit_transform(list(texts))
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=300, solver="liblinear").fit(
        matrix, list(violates)
    )
    return dict(zip(counts.get_feature_names_out(), map(float, model.coef_[0]), strict=True))
