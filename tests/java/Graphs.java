package oracle;

import java.nio.file.*;
import org.deeplearning4j.nn.api.Model;
import org.deeplearning4j.nn.graph.ComputationGraph;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.api.ndarray.INDArray;
import org.nd4j.linalg.factory.Nd4j;

/** What DL4J computes for networks with any number of inputs, outputs and masks. */
final class Graphs {
    /** Arguments: folders with model.zip, in_i.npy, labels_i.npy, fmask_i.npy, lmask_i.npy; each gets dl4j/. */
    public static void main(String[] folders) throws Exception {
        Nd4j.setDefaultDataTypes(DataType.DOUBLE, DataType.DOUBLE);
        for (String folder : folders) {
            Path dir = Paths.get(folder), out = dir.resolve("dl4j");
            try {
                Model net = Oracle.load(dir.resolve("model.zip").toString());
                ComputationGraph graph = net instanceof ComputationGraph ? (ComputationGraph) net : null;
                int ins = graph == null ? 1 : graph.getNumInputArrays(), outs = graph == null ? 1 : graph.getNumOutputArrays();
                INDArray[] labels = read(dir, "labels", outs);
                Models.Case c = new Models.Case(net, read(dir, "in", ins), labels, labels != null);
                c.masks(read(dir, "fmask", ins), read(dir, "lmask", outs));
                Models.dump(out, dir.getFileName().toString(), c, false);
            } catch (Throwable t) {
                System.out.println("FAILED " + dir.getFileName() + ": " + t.toString().split("\n")[0]);
                Models.delete(out);
            }
        }
    }

    /** The arrays of a kind, null where there is none; null where there are none at all. */
    private static INDArray[] read(Path dir, String kind, int count) throws Exception {
        INDArray[] found = new INDArray[count];
        boolean any = false;
        for (int i = 0; i < count; i++) {
            Path file = dir.resolve(kind + "_" + i + ".npy");
            if (Files.exists(file)) { found[i] = Npy.read(file); any = true; }
        }
        return any ? found : null;
    }
}
