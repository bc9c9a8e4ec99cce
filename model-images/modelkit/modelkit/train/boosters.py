"""XGBoost and LightGBM models, also inside pipelines: onnxmltools converts them, where it is installed."""

import importlib.util
from typing import Any

from skl2onnx import update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)

_CLASSIFIER_OPTIONS = {"nocl": [True, False], "zipmap": [True, False, "columns"]}


def register_boosters() -> None:
    """Tells the converter of those that are installed; may be called again."""
    if importlib.util.find_spec("onnxmltools") is None:
        return
    if importlib.util.find_spec("xgboost") is not None:
        _register_xgboost()
    if importlib.util.find_spec("lightgbm") is not None:
        _register_lightgbm()


def _register_xgboost() -> None:
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from xgboost import XGBClassifier, XGBRegressor

    def convert(scope: Any, operator: Any, container: Any) -> None:
        """The converter reads features by number; a booster trained on a frame knows them by name."""
        booster = operator.raw_operator.get_booster()
        names, booster.feature_names = booster.feature_names, None
        try:
            convert_xgboost(scope, operator, container)
        finally:
            booster.feature_names = names

    _register(XGBClassifier, XGBRegressor, "XGBoost", convert)


def _register_lightgbm() -> None:
    from lightgbm import LGBMClassifier, LGBMRegressor
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    _register(LGBMClassifier, LGBMRegressor, "LightGbm", convert_lightgbm)


def _register(classifier: Any, regressor: Any, name: str, convert: Any) -> None:
    update_registered_converter(
        classifier,
        name + classifier.__name__,
        calculate_linear_classifier_output_shapes,
        convert,
        options=_CLASSIFIER_OPTIONS,
    )
    update_registered_converter(
        regressor, name + regressor.__name__, calculate_linear_regressor_output_shapes, convert
    )
